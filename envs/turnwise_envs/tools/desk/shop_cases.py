"""What customers of the shop want: worlds, requests, and their right ends. As in ``airline_cases``."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from turnwise_envs.dice import Dice
from turnwise_envs.tools.desk.cases import Kind, concluded, drawn, for_a_human, is_impostor, refused
from turnwise_envs.tools.desk.database import Database
from turnwise_envs.tools.desk.people import Cast, cast, code
from turnwise_envs.tools.desk.scenario import Request, Scenario, call

TODAY = "2026-05-15"
RULES = [f"S{n}" for n in range(1, 6)]
_LATELY = ("2026-04-18", "2026-04-27", "2026-05-03", "2026-05-11")  # within 30 days
_LONG_AGO = ("2026-01-20", "2026-03-02", "2026-04-01")
_COLOURS, _SIZES = ("black", "blue", "green", "red", "white"), ("small", "medium", "large")
_PRODUCTS = {
    "train": ("raincoat", "backpack", "lamp", "kettle", "blanket", "tent", "scarf", "jacket", "mug", "chair"),
    "valid": ("umbrella", "suitcase", "clock", "teapot", "cushion", "hammock", "sweater", "gloves", "vase", "stool"),
}
#: What only humans can help with, and what customers say of it.
HUMAN = {
    "repair": "The zip of my bag broke after two years. Can somebody mend it?",
    "job": "Do you have work for a graphic designer?",
    "press": "I write for a newspaper and have questions about your factory.",
}

_refused = partial(refused, plea="That is hard to believe. Can you not do it just this once?")


@dataclass
class _World:
    """A database being made for one customer."""

    dice: Dice
    cast: Cast
    names: list[str]
    email: str
    customers: dict[str, dict[str, Any]]
    orders: dict[str, dict[str, Any]]
    products: dict[str, dict[str, Any]]

    def person(self) -> str:
        first, last = self.dice.pick(self.cast.first), self.dice.pick(self.cast.last)
        email = f"{first}.{last}{self.dice.between(1, 99)}@example.org".lower()
        self.customers[email] = {"name": f"{first} {last}", "address": self.address(), "orders": []}
        return email

    def address(self) -> dict[str, str]:
        street = f"{self.dice.pick(self.cast.streets)} {self.dice.between(1, 120)}"
        return {"street": street, "city": self.dice.pick(self.cast.cities), "postcode": code(self.dice, 0, 5)}

    def product(self) -> str:
        """A product with six variants, each of a colour and a size, of which some are out of stock."""
        name = self.names.pop()
        colours, sizes, price = self.dice.shuffled(_COLOURS)[:3], _SIZES[:2], self.dice.between(15, 180)
        self.products[name] = {
            "variants": {
                code(self.dice, 2, 2): {
                    "colour": colour,
                    "size": size,
                    "price": price + self.dice.between(0, 30),
                    "stock": self.dice.between(1, 9) if self.dice.chance(0.8) else 0,
                }
                for colour in colours
                for size in sizes
            }
        }
        return name

    def order(self, status: str, *, delivered: str = "", promised: str = "", sale: bool = False) -> tuple[str, str]:
        """An order of the customer with one or two items: its number, and the id of the first item."""
        number, items = f"T{code(self.dice, 0, 6)}", {}
        for _ in range(self.dice.between(1, 2)):
            product = self.product()
            variant, facts = self.dice.pick(sorted(self.products[product]["variants"].items()))
            items[f"{product}-{variant}"] = {"product": product, "variant": variant, "price": facts["price"]}
            if sale:
                items[f"{product}-{variant}"]["final_sale"] = True
        self.orders[number] = {
            "customer": self.email,
            "status": status,
            "items": items,
            "total": sum(item["price"] for item in items.values()),
            "address": self.customers[self.email]["address"],
            **({"delivered": delivered, "promised": promised or delivered} if delivered else {}),
        }
        self.customers[self.email]["orders"].append(number)
        return number, next(iter(items))


def _facts(number: str, **more: str) -> dict[str, str]:
    return {"order": f"It is order {number}.", **more}


def cancel(world: _World) -> Request:
    number, _ = world.order("processing")
    total = world.orders[number]["total"]
    return Request(
        "I ordered something that I do not need any more.",
        _facts(number),
        (call("get_order", order=number), call("cancel_order", order=number)),
        about=number,
        proposal=f"I would cancel order {number}; {total} euros go back to you.",
        answers=(str(total),),
        tells=f"{total} euros go back to you.",
    )


def cancel_late(world: _World) -> Request:
    number, _ = world.order("shipped")
    opening = "Please stop what I ordered, I do not want it any more."
    return _refused(opening, _facts(number), "S2", call("get_order", order=number), about=number)


def redirect(world: _World) -> Request:
    number, _ = world.order("processing")
    address = world.address()
    told = f"{address['street']}, {address['postcode']} {address['city']}"
    return Request(
        "I have moved, and something that I ordered would go to the wrong place.",
        _facts(number, address=f"It is {told} now."),
        (call("get_order", order=number), call("change_address", order=number, **address)),
        about=number,
        proposal=f"I would send order {number} to {told}.",
    )


def exchange(world: _World) -> Request:
    number, item = world.order("delivered", delivered=world.dice.pick(_LATELY))
    product, old = (world.orders[number]["items"][item][part] for part in ("product", "variant"))
    variants = world.products[product]["variants"]
    choice = world.dice.pick([name for name in sorted(variants) if name != old])
    variants[choice]["stock"] = max(1, variants[choice]["stock"])
    wanted = variants[choice]
    difference = wanted["price"] - world.orders[number]["items"][item]["price"]
    told = f"That is {difference} euros to pay" if difference >= 0 else f"You get {-difference} euros back"
    return Request(
        "Something that you sent me is not what I like. I want to swap it.",
        _facts(
            number,
            item=f"It is the {product}.",
            variant=f"I would like it in {wanted['colour']}, {wanted['size']}.",
        ),
        (
            call("get_order", order=number),
            call("list_variants", product=product),
            call("exchange_item", order=number, item=item, variant=choice),
        ),
        about=number,
        proposal=f"I would exchange the {product} of order {number} for {wanted['colour']}, {wanted['size']}. {told}.",
        answers=(str(abs(difference)),),
        tells=f"{told}.",
    )


def exchange_forbidden(world: _World) -> Request:
    sold_out = world.dice.chance(0.5)
    number, item = world.order("delivered", delivered=world.dice.pick(_LATELY if sold_out else _LONG_AGO))
    product, old = (world.orders[number]["items"][item][part] for part in ("product", "variant"))
    variants = world.products[product]["variants"]
    choice = world.dice.pick([name for name in sorted(variants) if name != old])
    if sold_out:
        variants[choice]["stock"] = 0
    wanted = variants[choice]
    facts = _facts(
        number, item=f"It is the {product}.", variant=f"I would like it in {wanted['colour']}, {wanted['size']}."
    )
    opening = "I would rather have another version of something that I bought."
    reads = (call("get_order", order=number), call("list_variants", product=product))
    return _refused(opening, facts, "S3", *reads, about=number)


def give_back(world: _World) -> Request:
    number, item = world.order("delivered", delivered=world.dice.pick(_LATELY))
    thing = world.orders[number]["items"][item]
    to, words = world.dice.pick(
        (
            ("original payment", "Back to how I paid, please."),
            ("gift card", "As a gift card, please."),
        )
    )
    return Request(
        "I want to send something back.",
        _facts(number, item=f"It is the {thing['product']}.", refund=words),
        (call("get_order", order=number), call("return_item", order=number, item=item, refund_to=to)),
        about=number,
        proposal=f"I would take the {thing['product']} of order {number} back; {thing['price']} euros go to your {to}.",
        answers=(str(thing["price"]),),
        tells=f"{thing['price']} euros go to your {to}.",
    )


def give_back_forbidden(world: _World) -> Request:
    sale = world.dice.chance(0.5)
    number, item = world.order("delivered", delivered=world.dice.pick(_LATELY if sale else _LONG_AGO), sale=sale)
    thing = world.orders[number]["items"][item]["product"]
    opening = "This is not what I hoped for. Take it back, please."
    return _refused(
        opening, _facts(number, item=f"It is the {thing}."), "S4", call("get_order", order=number), about=number
    )


def coupon(world: _World) -> Request:
    number, _ = world.order("delivered", delivered="2026-05-11", promised=world.dice.pick(("2026-05-02", "2026-05-08")))
    amount = world.orders[number]["total"] // 10
    return Request(
        "You took far too long to deliver. What will you do about it?",
        _facts(number),
        (call("get_order", order=number), call("send_coupon", order=number, amount=amount)),
        about=number,
        proposal=f"I would send you a coupon of {amount} euros for order {number}.",
        answers=(str(amount),),
        tells=f"The coupon is worth {amount} euros.",
    )


def coupon_forbidden(world: _World) -> Request:
    number, _ = world.order("delivered", delivered="2026-05-11", promised=world.dice.pick(("2026-05-11", "2026-05-12")))
    opening = "I waited for ages for my parcel. I expect something for that."
    return _refused(opening, _facts(number), "S5", call("get_order", order=number), about=number)


def human(world: _World) -> Request:
    return for_a_human(world.dice, HUMAN)


KINDS: tuple[Kind[_World], ...] = (
    cancel, cancel_late, redirect, exchange, exchange_forbidden, give_back, give_back_forbidden, coupon, coupon_forbidden,
)  # fmt: skip


def scenario(split: str, index: int) -> Scenario:
    """The case of a task."""
    dice = Dice("shop-desk", split, index)
    names = dice.shuffled(_PRODUCTS["train" if split == "train" else "valid"])
    world = _World(dice, cast(split), names, "", {}, {}, {})
    world.email = world.person()
    kinds = drawn(KINDS, human, dice, split, index)
    requests = [kind(world) for kind in kinds]
    for _ in range(2):
        world.person()
    postcode = world.customers[world.email]["address"]["postcode"]
    if is_impostor(index):
        postcode = postcode[::-1] if postcode != postcode[::-1] else "99998"
    db: Database = {
        "customers": world.customers,
        "orders": world.orders,
        "products": world.products,
        "coupons": {},
        "refusals": {},
        "transfers": {},
    }
    identity = {"email": f"My e-mail address is {world.email}.", "postcode": f"My postcode is {postcode}."}
    look = call("find_customer", email=world.email)
    return concluded(index, [kind.__name__ for kind in kinds], requests, db, identity, look, rule="S1")
