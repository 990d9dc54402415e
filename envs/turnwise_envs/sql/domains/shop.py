"""A shop: customers order products, and review them."""

from __future__ import annotations

from turnwise_envs.sql.domains.words import CITIES, COUNTRIES, PERSON
from turnwise_envs.sql.schema import Contact, Day, Domain, Flag, Id, Label, Number, Pick, Ref, Table

_THINGS = (
    ("Oak", "Steel", "Linen", "Copper", "Glass", "Wool", "Birch", "Stone", "Cork", "Paper"),
    ("Lamp", "Chair", "Kettle", "Blanket", "Bowl", "Shelf", "Clock", "Tray", "Vase", "Stool", "Basket", "Mirror"),
)

SHOP = Domain(
    "shop",
    "A shop that delivers.",
    (
        Table(
            "suppliers",
            "supplier",
            "suppliers",
            25,
            (
                Id("supplier_id"),
                Label(
                    "name",
                    parts=(
                        ("North", "Blue", "Old", "River", "Alpine", "Grand"),
                        ("Works", "Mill", "Trading", "Craft", "Supply"),
                    ),
                ),
                Pick("country", "country", values=COUNTRIES, such="from {}"),
                Number("rating", "rating", low=1, high=5, decimals=1, null=0.1),
            ),
        ),
        Table(
            "products",
            "product",
            "products",
            140,
            (
                Id("product_id", first=100),
                Label("name", parts=_THINGS),
                Ref("supplier_id", table="suppliers", role="supplier"),
                Pick(
                    "category",
                    "category",
                    values=("Furniture", "Kitchen", "Lighting", "Textiles", "Decor"),
                    such="in the category {}",
                ),
                Number("price", "price", low=4, high=400, decimals=2),
                Number("stock", "stock", low=0, high=300, sums=True),
                Flag(
                    "discontinued",
                    "being discontinued",
                    share=0.15,
                    such="that are discontinued",
                    unless="that are not discontinued",
                ),
            ),
        ),
        Table(
            "customers",
            "customer",
            "customers",
            420,
            (
                Id("customer_id", first=1000),
                Label("full_name", "name", parts=PERSON),
                Pick("city", "city", values=CITIES, such="who live in {}"),
                Pick(
                    "segment",
                    "segment",
                    values={"P": "private", "B": "business", "S": "school"},
                    such="of the {} segment",
                ),
                Day("joined_on", "joining date", years=(2018, 2023)),
                Contact("email", "e-mail address", null=0.12, pattern="{}@example.org"),
                Flag("newsletter", share=0.4, such="who get the newsletter", unless="who do not get the newsletter"),
            ),
        ),
        Table(
            "orders",
            "order",
            "orders",
            1300,
            (
                Id("order_id", first=5000),
                Ref("customer_id", table="customers", role="customer"),
                Day("ordered_on", "order date", years=(2021, 2024)),
                Day("shipped_on", "shipping date", after="ordered_on", within=14, null=0.14),
                Pick("status", values=("delivered", "shipped", "cancelled", "returned", "open"), such="with status {}"),
                Number("shipping_fee", "shipping fee", low=0, high=30, decimals=2, sums=True),
            ),
        ),
        Table(
            "order_items",
            "order item",
            "order items",
            3000,
            (
                Id("item_id"),
                Ref("order_id", table="orders", role="order"),
                Ref("product_id", table="products", role="product"),
                Number("quantity", low=1, high=12, sums=True),
                Number("unit_price", "unit price", low=4, high=400, decimals=2),
                Number("discount_percent", "discount in percent", low=5, high=40, null=0.6),
            ),
        ),
        Table(
            "reviews",
            "review",
            "reviews",
            700,
            (
                Id("review_id"),
                Ref("product_id", table="products", role="product"),
                Ref("customer_id", table="customers", role="customer"),
                Number("stars", "number of stars", low=1, high=5),
                Day("written_on", "date", years=(2021, 2024)),
                Contact("comment", null=0.35, pattern="As described, order no. {}."),
            ),
        ),
    ),
)
