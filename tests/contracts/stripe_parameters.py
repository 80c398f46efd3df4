"""Derives from the official library which parameters Stripe takes, for the simulator to read.

`python -m tests.contracts.stripe_parameters` rewrites `simulators/stripe/parameters.json`, which is
due when the library is pinned anew or when an operation supports more.
"""

import ast
import importlib
import inspect
import json
import pkgutil
import re
import types
import typing
from pathlib import Path

import stripe
from typing_extensions import is_typeddict

from simulators.stripe import api

TARGET = Path(api.__file__).with_name("parameters.json")
SCALARS = {str: "string", int: "integer", float: "number", bool: "boolean"}


def derive() -> dict:
    declared: dict[str, tuple] = {}
    for module in _service_modules():
        for method, path, shape in _calls(module):
            declared.setdefault(f"{method} {path}", shape)  # shapes are loaded when needed: slow
    operations = {}
    for operation in api.OPERATIONS:
        shape = _shape(*declared[operation.key])
        names = operation.supports.split()
        operations[operation.key] = _object(shape, names) if shape else {"object": {}}
        _check(operation.key, operations[operation.key]["object"], names)
    routes: dict[str, list[str]] = {}
    for key in sorted(declared):
        method, path = key.split(" ")
        routes.setdefault(method, []).append(path)
    return {"routes": routes, "operations": operations}


def _check(key, fields, names):
    for name in names:
        head = name.split(".")[0]
        assert fields.get(head) is not None, f"{key} supports {name}, which Stripe does not take"


def _service_modules():
    for found in pkgutil.walk_packages(stripe.__path__, "stripe."):
        if found.name.endswith("_service") and ".v2" not in found.name:
            yield importlib.import_module(found.name)


def _calls(module):
    """Find each `self._request("post", "/v1/…")` and the parameters' class of its method."""
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if not isinstance(node, ast.FunctionDef):
            continue
        for call in ast.walk(node):
            if isinstance(call, ast.Call) and getattr(call.func, "attr", "") == "_request":
                path = re.sub(r"\{[^}]*\}", "{}", _text(call.args[1]))
                if path.startswith("/v1"):
                    yield _text(call.args[0]).upper(), path, (module, node)


def _text(node) -> str:
    """Return a string of the source, also the one in `"/v1/…/{id}".format(…)`."""
    return node.value if isinstance(node, ast.Constant) else node.func.value.value


def _shape(module, function):
    """Return the TypedDict of a method's parameters, None when it takes none."""
    for argument in function.args.args:
        if argument.arg == "params":
            (name,) = re.findall(r"\w+Params\b", ast.unparse(argument.annotation))
            for node in ast.walk(ast.parse(inspect.getsource(module))):
                if isinstance(node, ast.ImportFrom) and name in {one.name for one in node.names}:
                    return getattr(importlib.import_module(node.module or ""), name)
    return None


def _object(shape, supported):
    """Return a TypedDict's fields, and those that a request cannot leave out."""
    fields = _fields(shape, supported)
    required = sorted(name for name in fields if not _may_be_left_out(shape.__annotations__[name]))
    for name in required:
        assert fields[name] is not None, f"{shape.__name__} is useless without {name}"
    return {"object": fields} | ({"required": required} if required else {})


def _may_be_left_out(hint):
    if isinstance(hint, str | typing.ForwardRef):
        text = hint if isinstance(hint, str) else hint.__forward_arg__
        return text.startswith("NotRequired[")
    return typing.get_origin(hint) is typing.NotRequired


def _fields(shape, supported):
    """Return the types of a TypedDict's fields; None for those that are not supported."""
    module = importlib.import_module(shape.__module__)
    fields = {}
    for name, hint in shape.__annotations__.items():
        if name in stripe.RequestOptions.__annotations__:
            continue
        inner = [one.partition(".")[2] for one in supported if one.split(".")[0] == name]
        fields[name] = _type(hint, [] if "" in inner else inner, module) if inner else None
    return fields


def _type(hint, supported, module):  # noqa: PLR0911 - one for each kind of type
    if isinstance(hint, str | typing.ForwardRef):
        text = hint if isinstance(hint, str) else hint.__forward_arg__
        hint = eval(text, vars(module))  # noqa: S307 - the installed library's own annotation
    if hint in SCALARS:
        return SCALARS[hint]
    if is_typeddict(hint):
        names = supported or list(hint.__annotations__)
        return _object(hint, names)
    arguments = typing.get_args(hint)
    origin = typing.get_origin(hint)
    if origin is typing.NotRequired:
        return _type(arguments[0], supported, module)
    if origin is typing.Literal:
        return {"enum": list(arguments)}
    if origin is list:
        return {"list": _type(arguments[0], supported, module)}
    if origin is dict:
        return "map"
    assert origin in {typing.Union, types.UnionType}, hint
    return _union(arguments, supported, module)


def _union(arguments, supported, module):
    """An open enum is closed (Stripe refuses unknown words); an empty string means unset."""
    kept = [one for one in arguments if "UntypedStripeObject" not in str(one)]
    is_unsettable = any(typing.get_args(one) == ("",) for one in kept)
    kept = [one for one in kept if typing.get_args(one) != ("",)]
    if any(typing.get_origin(one) is typing.Literal for one in kept):
        kept = [one for one in kept if one is not str]
    schemas = [_type(one, supported, module) for one in kept]
    schema = schemas[0] if len(schemas) == 1 else {"any": schemas}
    return {"or_empty": schema} if is_unsettable else schema


def as_text():
    """One line for each operation and method, so that a difference can be read."""
    parts = []
    for part, entries in derive().items():
        lines = [f"  {json.dumps(key)}: {json.dumps(entries[key])}" for key in sorted(entries)]
        parts.append(f" {json.dumps(part)}: {{\n" + ",\n".join(lines) + "\n }")
    return "{\n" + ",\n".join(parts) + "\n}\n"


if __name__ == "__main__":
    TARGET.write_text(as_text(), encoding="utf-8")
