"""The shop's desk: its rules, its tools, and what each tool does to the database.

As at the airline, the tools do what they are told wherever that makes sense, and obeying the rules is the policy's work.
"""

from __future__ import annotations

from typing import Any

from turnwise_envs.tools.desk.database import Database, Row, append, put, row, show
from turnwise_envs.tools.desk.env import DeskEnvironment, DeskTasks, spec_of
from turnwise_envs.tools.desk.scenario import Desk, Topic, closing_tools, tool
from turnwise_envs.tools.desk.shop_cases import HUMAN, RULES, TODAY, scenario
from turnwise_envs.tools_api import Toolbox, ToolMistake
from turnwise_envs.types import JsonObject

POLICY = f"""You serve customers of the web shop Tern & Tide. Today is {TODAY}. Rules:
S1. First ask for the e-mail address and the postcode, and compare them with the customer's record. If they do not match, \
change nothing and tell nothing; refuse under S1.
S2. Orders can be cancelled, and their address changed, only while they are "processing". Otherwise refuse under S2. After \
cancelling, tell the customer the total that is refunded.
S3. A delivered item can be exchanged within 30 days of delivery for another variant of the same product that is in stock. \
Otherwise refuse under S3. Tell the customer the difference of the prices.
S4. A delivered item can be returned within 30 days of delivery; nothing from the final sale can. Otherwise refuse under \
S4. The refund goes to the original payment, or to a gift card if the customer wants that; tell the customer how much it is.
S5. For an order that was delivered later than promised, the customer gets a coupon of 10 % of its total, rounded down to \
whole euros, once an order. Otherwise refuse under S5. Tell the customer what it is worth.
Before you cancel, exchange, return or change anything or send a coupon, say what you would do, naming the order, and wait \
for the customer's agreement. When a rule forbids a request, log it with `refuse` and tell the customer that you cannot do it. \
What none of the tools is for (repairs, jobs, press) is for a human: use `transfer_to_human`, which ends the conversation."""

TEXT: JsonObject = {"type": "string"}
PAID_BACK = ("original payment", "gift card")

BOX = Toolbox(
    [
        tool("find_customer", "The record of a customer by e-mail address, with their orders.", email=TEXT),
        tool("get_order", "An order with its items.", order=TEXT),
        tool("list_variants", "All variants of a product: options, price in euros, stock.", product=TEXT),
        tool("cancel_order", "Cancel an order and refund it.", order=TEXT),
        tool("change_address", "Send an order to another address.", order=TEXT, street=TEXT, city=TEXT, postcode=TEXT),
        tool("exchange_item", "Exchange an item of an order for a variant.", order=TEXT, item=TEXT, variant=TEXT),
        tool(
            "return_item",
            "Take an item of an order back.",
            order=TEXT,
            item=TEXT,
            refund_to={"type": "string", "enum": list(PAID_BACK)},
        ),
        tool(
            "send_coupon",
            "Send a coupon for an order; amount in euros.",
            order=TEXT,
            amount={"type": "integer", "minimum": 1, "maximum": 1_000},
        ),
        *closing_tools(RULES, HUMAN),
    ],
    max_calls=8,
)

TOPICS = {
    "email": Topic(("e-mail", "email", "mail address"), "your e-mail address"),
    "postcode": Topic(("postcode", "post code", "postal code", "zip"), "your postcode"),
    "order": Topic(("order number", "order", "which one"), "the number of your order"),
    "item": Topic(("which item", "item", "article", "product"), "which item it is about"),
    "variant": Topic(("variant", "colour", "color", "size", "instead"), "which variant you would like"),
    "refund": Topic(("refund", "money back", "gift card", "payment"), "how you would like the refund"),
    "address": Topic(("new address", "address", "street", "where"), "the new address"),
}


def run(db: Database, name: str, arguments: JsonObject) -> tuple[Database, str]:
    """Run one tool. Raises ToolMistake."""
    match name:
        case "find_customer":
            email = arguments["email"].strip().lower()
            return db, show(row(db, "customers", email))
        case "get_order":
            return db, show(row(db, "orders", arguments["order"]))
        case "list_variants":
            return db, show(row(db, "products", arguments["product"].strip().lower()))
        case "cancel_order":
            order = _live(db, arguments["order"])
            return put(db, "orders", arguments["order"], status="cancelled"), f"Cancelled: {order['total']} euros back."
        case "change_address":
            _live(db, arguments["order"])
            address = {part: arguments[part].strip() for part in ("street", "city", "postcode")}
            return put(db, "orders", arguments["order"], address=address), "The address is changed."
        case "exchange_item":
            return _exchange(db, arguments["order"], arguments["item"], arguments["variant"])
        case "return_item":
            item = _kept(db, arguments["order"], arguments["item"])
            after = _with_item(db, arguments["order"], arguments["item"], {**item, "returned": arguments["refund_to"]})
            return after, f"A label is on its way. {item['price']} euros go to the {arguments['refund_to']}."
        case "send_coupon":
            _live(db, arguments["order"])
            return append(db, "coupons", **arguments), "The coupon is on its way."
        case "refuse":
            return append(db, "refusals", **arguments), "Logged."
        case _:
            return append(db, "transfers", **arguments), "A human takes over."


def _exchange(db: Database, number: str, item_id: str, variant: str) -> tuple[Database, str]:
    item = _kept(db, number, item_id)
    variants = db["products"][item["product"]]["variants"]
    if variant not in variants:
        raise ToolMistake(f"{variant[:60]!r} is not a variant of {item['product']}; they are {', '.join(variants)}.")
    wanted = variants[variant]
    if wanted["stock"] == 0:
        raise ToolMistake("That variant is out of stock.")
    difference = wanted["price"] - item["price"]
    after = _with_item(db, number, item_id, {**item, "variant": variant, "price": wanted["price"], "exchanged": True})
    stock = {**variants, variant: {**wanted, "stock": wanted["stock"] - 1}}
    after = put(after, "products", item["product"], variants=stock)
    return (
        after,
        f"Exchanged: {difference} euros to pay." if difference >= 0 else f"Exchanged: {-difference} euros back.",
    )


def _live(db: Database, number: str) -> Row:
    order = row(db, "orders", number)
    if order["status"] == "cancelled":
        raise ToolMistake("That order is cancelled already.")
    return order


def _kept(db: Database, number: str, item_id: str) -> Row:
    items = _live(db, number)["items"]
    if item_id not in items:
        raise ToolMistake(f"There is no item {item_id[:60]!r} in that order; it has {', '.join(items)}.")
    item: Row = items[item_id]
    if "returned" in item:
        raise ToolMistake("That item is returned already.")
    return item


def _with_item(db: Database, number: str, item_id: str, item: dict[str, Any]) -> Database:
    return put(db, "orders", number, items={**db["orders"][number]["items"], item_id: item})


SHOP = Desk(
    id="shop-desk",
    description="A web shop's service desk: orders, rules and a scripted customer, in the manner of tau-bench.",
    policy=POLICY,
    box=BOX,
    run=run,
    writes=frozenset({"cancel_order", "change_address", "exchange_item", "return_item", "send_coupon"}),
    topics=TOPICS,
    scenario=scenario,
    splits={"train": 5_000, "valid": 500},
)


class ShopDesk(DeskEnvironment):
    """A conversation with a customer of Tern & Tide."""

    desk = SHOP
    spec = spec_of(SHOP)
    tasks = DeskTasks(spec, SHOP)
