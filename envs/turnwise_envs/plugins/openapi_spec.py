"""From an OpenAPI document (3.0, 3.1) to tools, and from a tool's arguments to a request. Pure: nothing is sent here.

An operation becomes a tool named by its ``operationId``. Path, query and header parameters are arguments by their
names, a JSON body is the argument ``body``. What needs anything else (cookies, forms, uploads) is left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import quote, urlencode

from turnwise_envs.tools_api import ToolMistake
from turnwise_envs.types import JsonObject, ToolSpec

BODY = "body"
_METHODS = ("get", "put", "post", "delete", "patch", "head", "options")
#: Headers that are not parameters, whatever a document says (OpenAPI 3.1, "Parameter Object").
_NOT_PARAMETERS = {"accept", "content-type", "authorization"}
#: What a schema of OpenAPI has beyond JSON Schema; a policy needs none of it.
_ONLY_OPENAPI = {"nullable", "example", "discriminator", "xml", "externalDocs"}
_LOCAL = "#/components/schemas/"


class BadSpec(ValueError):
    """A document that is no OpenAPI 3 description, or refers to what is not in it."""


@dataclass(frozen=True)
class Parameter:
    """One argument and where it goes. ``explode`` and ``style`` as in OpenAPI; ``as_json`` if it is sent as JSON."""

    argument: str
    name: str
    place: Literal["path", "query", "header"]
    required: bool
    schema: Any
    style: str
    explode: bool
    as_json: bool


@dataclass(frozen=True)
class Request:
    """What to send. ``path`` is percent-encoded and begins with a slash, a query included; ``body`` is JSON or None."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes | None


@dataclass(frozen=True)
class Operation:
    """One operation as a tool."""

    tool: ToolSpec
    method: str
    path: str
    parameters: tuple[Parameter, ...]

    def request(self, arguments: JsonObject) -> Request:
        """What a call with ``arguments``, which fit the schema, sends. Raises ToolMistake for what no address can hold."""
        path, query, headers = self.path, [], {}
        for one in self.parameters:
            value = arguments.get(one.argument)
            if value is None:
                continue
            if one.place == "path":
                path = path.replace(f"{{{one.name}}}", _segment(one, value))
            elif one.place == "query":
                query += list(_pairs(one, value))
            else:
                headers[one.name] = _header(one, value)
        body = json.dumps(arguments[BODY]).encode() if BODY in arguments and self._has_body else None
        return Request(self.method.upper(), path + (f"?{urlencode(query)}" if query else ""), headers, body)

    @property
    def _has_body(self) -> bool:
        return all(one.argument != BODY for one in self.parameters)


def operations(document: Any) -> list[Operation]:
    """All operations that can be tools, in the order of the document. Raises BadSpec."""
    if not isinstance(document, dict) or not str(document.get("openapi", "")).startswith("3."):
        said = (
            f"openapi: {document.get('openapi', document.get('swagger'))}"
            if isinstance(document, dict)
            else "no object"
        )
        raise BadSpec(f"it is no OpenAPI 3 document ({said})")
    found: dict[str, Operation] = {}
    for path, item in _object(document.get("paths")).items():
        item = _resolved(item, document)
        for method in _METHODS:
            if method in item:
                made = _operation(document, path, method, item)
                if made is not None:
                    found.setdefault(made.tool.name, made)
    return list(found.values())


def server_of(document: Any) -> str | None:
    """The address of the service that the document names first, relative to its own; None if it has variables."""
    servers = document.get("servers") or [{"url": "/"}]
    url = _object(servers[0]).get("url")
    return url if isinstance(url, str) and "{" not in url else None


def _operation(document: Any, path: str, method: str, item: JsonObject) -> Operation | None:
    operation = _object(item[method])
    shared = [_resolved(one, document) for one in item.get("parameters", [])]
    own = [_resolved(one, document) for one in operation.get("parameters", [])]
    described = {(one.get("in"), one.get("name")): one for one in [*shared, *own]}
    schemas = _Schemas(document)
    parameters: list[Parameter] = []
    for one in described.values():
        if one.get("in") == "header" and str(one.get("name")).lower() in _NOT_PARAMETERS:
            continue
        made = _parameter(one, schemas, {other.argument for other in parameters})
        if made is not None:
            parameters.append(made)
        elif one.get("required"):
            return None
    properties = {one.argument: one.schema for one in parameters}
    required = [one.argument for one in parameters if one.required]
    body = _resolved(operation.get("requestBody", {}), document)
    content = next((media for kind, media in _object(body.get("content")).items() if _is_json(kind)), None)
    if content is not None and BODY not in properties:
        properties[BODY] = schemas.of(_object(content).get("schema", {}))
        required += [BODY] if body.get("required") else []
    elif body.get("required"):
        return None
    if any(
        name not in {one.name for one in parameters if one.place == "path"} for name in re.findall(r"{(.+?)}", path)
    ):
        return None
    schema: JsonObject = {"type": "object", "properties": properties, "additionalProperties": False}
    schema |= {"required": required} if required else {}
    schema |= {"$defs": schemas.used} if schemas.used else {}
    words = dict.fromkeys(filter(None, (operation.get("summary"), operation.get("description"))))
    name = _name(operation.get("operationId") or f"{method}_{path}")
    tool = ToolSpec(name=name, description="\n".join(words) or f"{method.upper()} {path}", parameters=schema)
    return Operation(tool, method, path, tuple(parameters))


def _parameter(one: JsonObject, schemas: _Schemas, taken: set[str]) -> Parameter | None:
    """The parameter, or None if it is of a kind that is not sent."""
    place, name = one.get("in"), one.get("name")
    if place not in ("path", "query", "header") or not isinstance(name, str):
        return None
    content = _object(one.get("content"))
    if content and not all(map(_is_json, content)):
        return None
    schema = _object(next(iter(content.values()))).get("schema", {}) if content else one.get("schema", {})
    described = schemas.of(schema)
    if one.get("description") and isinstance(described, dict):
        described = {"description": one["description"], **described}
    style = one.get("style") or ("form" if place == "query" else "simple")
    return Parameter(
        argument=name if name not in taken else f"{place}_{name}",
        name=name,
        place=place,
        required=bool(one.get("required")) or place == "path",
        schema=described,
        style=style,
        explode=bool(one.get("explode", style == "form")),
        as_json=bool(content),
    )


class _Schemas:
    """Schemas of OpenAPI as JSON Schemas; what they refer to is gathered in ``used``, for ``$defs``."""

    def __init__(self, document: Any) -> None:
        self.used: JsonObject = {}
        self._all = _object(_object(document.get("components")).get("schemas"))

    def of(self, schema: Any) -> Any:
        if isinstance(schema, list):
            return [self.of(one) for one in schema]
        if not isinstance(schema, dict):
            return schema
        if isinstance(schema.get("$ref"), str):
            return {"$ref": self._local(schema["$ref"])}
        made = {key: self._part(key, value) for key, value in schema.items() if key not in _ONLY_OPENAPI}
        for limit in ("Minimum", "Maximum"):  # 3.0: a flag beside the limit; JSON Schema: the limit itself
            flag = made.get(f"exclusive{limit}")
            if isinstance(flag, bool):
                del made[f"exclusive{limit}"]
                if flag and limit.lower() in made:
                    made[f"exclusive{limit}"] = made.pop(limit.lower())
        return {"anyOf": [made, {"type": "null"}]} if schema.get("nullable") is True else made

    def _part(self, key: str, value: Any) -> Any:
        if key in ("properties", "patternProperties", "$defs") and isinstance(value, dict):
            return {name: self.of(one) for name, one in value.items()}
        return value if key in ("enum", "const", "default", "examples", "required") else self.of(value)

    def _local(self, reference: str) -> str:
        name = reference.removeprefix(_LOCAL).replace("~1", "/").replace("~0", "~")
        if not reference.startswith(_LOCAL) or name not in self._all:
            raise BadSpec(f"it refers to {reference}, which is not in it")
        if name not in self.used:
            self.used[name] = {}  # it may refer to itself
            self.used[name] = self.of(self._all[name])
        return f"#/$defs/{name.replace('~', '~0').replace('/', '~1')}"


def _resolved(value: Any, document: Any, depth: int = 0) -> JsonObject:
    """An object of the document, through a local reference if it is one."""
    found = _object(value)
    reference = found.get("$ref")
    if not isinstance(reference, str):
        return found
    target: Any = document
    for part in reference.removeprefix("#/").split("/"):
        target = _object(target).get(part.replace("~1", "/").replace("~0", "~"))
    if not reference.startswith("#/") or target is None or depth > 20:
        raise BadSpec(f"it refers to {reference}, which is not in it")
    return _resolved(target, document, depth + 1)


def _segment(one: Parameter, value: Any) -> str:
    if one.as_json:
        return quote(json.dumps(value), safe="")
    flat = ",".join(quote(part, safe="") for part in _parts(value))
    if flat in ("", ".", ".."):
        raise ToolMistake(f"{one.argument}: {flat!r} cannot be a part of an address.")
    return flat


def _pairs(one: Parameter, value: Any) -> Iterator[tuple[str, str]]:
    if one.as_json:
        yield one.name, json.dumps(value)
    elif isinstance(value, dict) and one.style == "deepObject":
        yield from ((f"{one.name}[{key}]", _scalar(part)) for key, part in value.items())
    elif isinstance(value, dict) and one.explode:
        yield from ((key, _scalar(part)) for key, part in value.items())
    elif isinstance(value, list) and one.explode:
        yield from ((one.name, _scalar(part)) for part in value)
    else:
        separator = {"spaceDelimited": " ", "pipeDelimited": "|"}.get(one.style, ",")
        yield one.name, separator.join(_parts(value))


def _header(one: Parameter, value: Any) -> str:
    text = json.dumps(value) if one.as_json else ",".join(_parts(value))
    if not text.isascii() or not text.isprintable():
        raise ToolMistake(f"{one.argument}: a header holds printable ASCII characters only.")
    return text


def _parts(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for key, part in value.items() for text in (key, _scalar(part))]
    return [_scalar(part) for part in value] if isinstance(value, list) else [_scalar(value)]


def _scalar(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9-]+", "_", text).strip("_")[:64]


def _is_json(kind: str) -> bool:
    return bool(re.fullmatch(r"application/(?:[\w.+-]+\+)?json(?:\s*;.*)?", kind, re.IGNORECASE))


def _object(value: Any) -> JsonObject:
    return dict(value) if isinstance(value, Mapping) else {}
