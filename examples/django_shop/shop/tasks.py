import django

from shop.models import Order

if django.VERSION >= (6, 0):
    from django.tasks import task
else:
    from django_tasks import task


@task(queue_name="mail", priority=10)
def confirm(number: int) -> str:
    order = Order.objects.get(pk=number)
    order.is_confirmed = True
    order.save()
    return f"order {order.pk}, {order.item}, is confirmed"
