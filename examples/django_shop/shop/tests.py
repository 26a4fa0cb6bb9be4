from django.test import TestCase

from forge_jobs.integrations.django.testing import assert_enqueued, refute_enqueued, run_tasks
from shop.tasks import confirm


class OrderTests(TestCase):
    def test_an_order_is_confirmed(self) -> None:
        answer = self.client.post("/orders/", {"item": "a book"})

        assert_enqueued(confirm, [answer.json()["order"]], queue="mail")
        [result] = run_tasks()
        self.assertEqual(result.return_value, f"order {answer.json()['order']}, a book, is confirmed")

    def test_what_is_out_of_stock_is_not(self) -> None:
        self.assertEqual(self.client.post("/orders/", {"item": "a bike"}).status_code, 409)

        refute_enqueued(confirm)
