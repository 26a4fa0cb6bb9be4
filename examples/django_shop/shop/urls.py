from django.db import transaction
from django.http import HttpRequest, JsonResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from shop.models import Order
from shop.tasks import confirm


class OutOfStock(Exception):
    """There is none of an item."""


@csrf_exempt
def order(request: HttpRequest) -> JsonResponse:
    try:
        with transaction.atomic():
            made = Order.objects.create(item=request.POST["item"])
            result = confirm.enqueue(made.pk)
            if made.item == "a bike":
                raise OutOfStock  # rolls back both
    except OutOfStock:
        return JsonResponse({"error": "out of stock"}, status=409)
    return JsonResponse({"order": made.pk, "task": result.id}, status=202)


def status(request: HttpRequest, task_id: str) -> JsonResponse:
    result = confirm.get_result(task_id)
    return JsonResponse(
        {"status": result.status, "result": result.return_value if result.is_finished else None}
    )


urlpatterns = [path("orders/", order), path("tasks/<task_id>/", status)]
