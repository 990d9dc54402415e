"""The hardest questions: window functions, and changes of the data. See :mod:`.questions` for what a family is."""

from __future__ import annotations

from turnwise_envs.sql.questions import Ask, Draft, NothingFits, known, of, where
from turnwise_envs.sql.schema import Day, Id, Label, Number, Pick, Ref


def best_of_each(ask: Ask) -> Draft:
    table = ask.table(Label, Number, Pick)
    number, pick, label = ask.pick(table.of(Number)), ask.pick(table.of(Pick)), table.label
    found = ask.conditions(table, 1, {number.name, pick.name})
    recorded = known(table, number, pick)
    return Draft(
        "best_of_each",
        f"For each {pick.words}, which of the {of(table, found)} has the highest {number.words}? Give the {pick.words} as it is "
        f"stored, the {label.words} and the {number.words}; where several share the highest, give all of them."
        + (f" Leave out those without a recorded {number.words} or {pick.words}." if recorded else ""),
        f"SELECT {pick.name}, {label.name}, {number.name} FROM (SELECT {pick.name}, {label.name}, {number.name}, RANK() OVER "
        f"(PARTITION BY {pick.name} ORDER BY {number.name} DESC) AS place FROM {table.name}{where(found, *recorded)}) "
        "WHERE place = 1",
    )


def running_total(ask: Ask) -> Draft:
    table = ask.table(Day)
    day = ask.pick(table.of(Day))
    found = ask.conditions(table, 1, {day.name}, least=1)
    recorded = known(table, day)
    year = f"strftime('%Y', {table.name}.{day.name})"
    return Draft(
        "running_total",
        f"For each year of the {day.words} in which there are any {of(table, found)}: how many are there, and how many up to "
        "the end of that year? Give the year, the number and the running total, in the order of the years.",
        f"SELECT {year} AS year, COUNT(*), SUM(COUNT(*)) OVER (ORDER BY {year}) FROM {table.name}{where(found, *recorded)} "
        f"GROUP BY {year} ORDER BY {year}",
    )


def change(ask: Ask) -> Draft:
    table = ask.table(Day, Number)
    numbers = [number for number in table.of(Number) if number.sums and not number.null]
    day, number = ask.pick(table.of(Day)), ask.pick(numbers)
    found = ask.conditions(table, 1, {day.name, number.name})
    recorded = known(table, day)
    return Draft(
        "change",
        f"For each year of the {day.words} in which there are any {of(table, found)}: what is their total {number.words}, and "
        "by how much is it above that of the year before in the list? Give the year, the total and the difference, in the "
        "order of the years; the first year has no difference (NULL).",
        f"WITH yearly AS (SELECT strftime('%Y', {table.name}.{day.name}) AS year, SUM({table.name}.{number.name}) AS total "
        f"FROM {table.name}{where(found, *recorded)} GROUP BY year) "
        "SELECT year, total, total - LAG(total) OVER (ORDER BY year) FROM yearly ORDER BY year",
    )


def latest(ask: Ask) -> Draft:
    link = ask.link(lambda link: link.parent.of(Label) and link.child.of(Day) and link.child.of(Number))
    child, parent, key, label = link.child, link.parent, link.child.key, link.parent.label
    day, number = ask.pick(child.of(Day)), ask.pick(child.of(Number))
    above = ask.conditions(parent, 1, least=1)
    recorded = known(child, day)
    return Draft(
        "latest",
        f"For each of the {of(parent, above)}, take the latest of their {link.children}: that with "
        f"the latest {day.words}, and of several on that day the one with the highest {key}. Give the {label.words}, the "
        f"{day.words} and the {number.words} of that {child.one}; leave out {parent.many} without one.",
        f"SELECT label, day, number FROM (SELECT {parent.name}.{label.name} AS label, {child.name}.{day.name} AS day, "
        f"{child.name}.{number.name} AS number, ROW_NUMBER() OVER (PARTITION BY {parent.name}.{parent.key} ORDER BY "
        f"{child.name}.{day.name} DESC, {child.name}.{key} DESC) AS place FROM {parent.name} JOIN {child.name} ON {link.on}"
        f"{where(above, *recorded)}) WHERE place = 1",
    )


def share(ask: Ask) -> Draft:
    table = ask.table(Pick, Number)
    numbers = [number for number in table.of(Number) if number.sums]
    picks = [pick for pick in table.of(Pick) if not pick.null]
    number, pick = ask.pick(numbers), ask.pick(picks)
    found = ask.conditions(table, 1, {number.name, pick.name})
    recorded = known(table, number)
    return Draft(
        "share",
        f"What percentage of the total {number.words} of all {of(table, found)} falls to each {pick.words}? Give the {pick.words} "
        "as it is stored and the percentage (0 to 100, not rounded)"
        + (f"; leave out {table.many} without a recorded {number.words}." if number.null else "."),
        f"SELECT {pick.name}, 100.0 * SUM({number.name}) / SUM(SUM({number.name})) OVER () FROM {table.name}"
        f"{where(found, *recorded)} GROUP BY {pick.name}",
    )


def raise_numbers(ask: Ask) -> Draft:
    """An UPDATE, half of the time restricted by the rows that are referred to."""
    table = ask.table(Number)
    whole = [number for number in table.of(Number) if not number.decimals]
    number, by = ask.pick(whole), ask.dice.between(1, 9)
    links = [link for link in ask.links if link.child is table]
    own = ask.conditions(table, 1, {number.name}, least=1)
    if links and ask.dice.chance(0.5):
        link = ask.pick(links)
        above = ask.conditions(link.parent, 1, least=1)
        if not above:
            raise NothingFits
        keys = f"{link.ref.name} IN (SELECT {link.parent.key} FROM {link.parent.name}{where(above)})"
        return Draft(
            "update_join",
            f"Add {by} to the {number.words} of all {table.many} whose {link.ref.role} is one of the {of(link.parent, above)}. "
            "Where there is none, leave it so.",
            f"UPDATE {table.name} SET {number.name} = {number.name} + {by} WHERE {keys}",
            writes=table.name,
        )
    if not own:
        raise NothingFits
    return Draft(
        "update",
        f"Add {by} to the {number.words} of all {of(table, own)}. Where there is none, leave it so.",
        f"UPDATE {table.name} SET {number.name} = {number.name} + {by}{where(own)}",
        writes=table.name,
    )


def remove(ask: Ask) -> Draft:
    """A DELETE in a table that nothing refers to."""
    referred = {ref.table for table in ask.domain.tables for ref in table.of(Ref)}
    leaves = [table for table in ask.domain.tables if table.name not in referred]
    table = ask.pick(leaves)
    found = ask.conditions(table, 2, least=1)
    if not found:
        raise NothingFits
    return Draft(
        "delete",
        f"Delete all {of(table, found)}.",
        f"DELETE FROM {table.name}{where(found)}",
        writes=table.name,
    )


def add(ask: Ask) -> Draft:
    """An INSERT that must look up whom the new row refers to."""
    link = ask.link(lambda link: link.parent.of(Label) and len(link.child.columns) <= 7 and not link.child.of(Label))
    child, parent = link.child, link.parent
    others = [ref for ref in child.of(Ref) if ref is not link.ref]
    if len(others) > 1 or any(ref.table == child.name for ref in others):
        raise NothingFits
    numbers = [number for number in parent.of(Number) if not number.null]
    number = ask.pick(numbers)
    values = {child.of(Id)[0].name: "990001"}
    said = [f"{child.key} 990001"]
    chosen = f"(SELECT {parent.key} FROM {parent.name} ORDER BY {number.name} DESC, {parent.key} LIMIT 1)"
    for column in child.columns:
        if column is link.ref:
            values[column.name] = chosen
        elif isinstance(column, Ref):
            other = ask.domain.table(column.table)
            values[column.name] = f"(SELECT MIN({other.key}) FROM {other.name})"
            said.append(f"as {column.role} the {other.one} with the lowest {other.key}")
        elif isinstance(column, Number):
            amount = ask.dice.between(column.low, column.high)
            values[column.name] = str(amount)
            said.append(f"{column.name} {amount}")
        elif isinstance(column, Day):
            values[column.name] = "'2024-12-30'"
            said.append(f"{column.name} 2024-12-30")
        elif isinstance(column, Pick):
            stored = ask.pick(list(column.values))
            values[column.name] = f"'{stored}'"
            said.append(f"{column.name} '{stored}'")
        elif not isinstance(column, Id):
            values[column.name] = "NULL" if column.null else "0"
            said.append(f"{column.name} {'NULL' if column.null else 0}")
    return Draft(
        "insert",
        f"Add one {child.one} with {', '.join(said)}, and as {link.ref.role} the {parent.one} with the highest {number.words} "
        f"(of several, that with the lowest {parent.key}).",
        f"INSERT INTO {child.name} ({', '.join(values)}) VALUES ({', '.join(values.values())})",
        writes=child.name,
    )
