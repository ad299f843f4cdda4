"""What the API's schema says beyond what the routes' signatures do: answers, statuses, the key."""

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from coterie.serving.guard import OPEN
from coterie.serving.schemas import (
    FOLD_IN,
    Health,
    LikeItem,
    LookUp,
    ManyLists,
    OneList,
    Problem,
    Ready,
    SimilarItems,
    StoredList,
    Versions,
)

_PROBLEMS = {
    400: "the request cannot be read",
    401: "no key, or a wrong one",
    404: "there is none",
    408: "the body did not come in time",
    413: "the body is too long",
    422: "a field has a value that it cannot have",
    429: "too many requests wait for the model",
    500: "a fault of the server's",
    503: "not now; see Retry-After",
}
_ALWAYS = (400, 401, 413, 500, 503)


def _answers(model: Any, *statuses: int) -> dict[int | str, dict[str, Any]]:
    refused: dict[int | str, dict[str, Any]] = {
        status: {"model": Problem, "description": _PROBLEMS[status]}
        for status in sorted((*_ALWAYS, *statuses))
    }
    return {200: {"model": model, "description": "the answer"}, **refused}


ANSWERS: dict[str, dict[int | str, dict[str, Any]]] = {
    "recommendations": _answers(StoredList, 404, 422),
    "fold_in": _answers(OneList | ManyLists, 408, 422, 429),
    "similar": _answers(SimilarItems, 404, 422, 429),
    "health": _answers(Health),
    "ready": _answers(Ready),
    "version": _answers(Versions),
    "metrics": {
        **_answers(None),
        200: {"description": "meters", "content": {"text/plain": {"schema": {"type": "string"}}}},
    },
}
"""By the name of the route: every status, and what comes with it."""

_REF = "#/components/schemas/{model}"
_BODY = FOLD_IN.json_schema(ref_template=_REF)
_REQUESTS: dict[str, Any] = _BODY.pop("$defs")


def _parameters(model: type[BaseModel], in_path: str) -> dict[str, Any]:
    drawn = model.model_json_schema()
    return {
        "parameters": [
            {
                "name": name,
                "in": "path" if name == in_path else "query",
                "required": name in drawn["required"],
                "description": field.pop("description"),
                "schema": field,
            }
            for name, field in drawn["properties"].items()
        ]
    }


ASKED: dict[str, dict[str, Any]] = {
    "recommendations": _parameters(LookUp, "user_id"),
    "similar": _parameters(LikeItem, "item_id"),
    "fold_in": {
        "requestBody": {"required": True, "content": {"application/json": {"schema": _BODY}}}
    },
}
"""By the name of the route: what it reads of the request."""

_KEYS = {
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "bearer": {"type": "http", "scheme": "bearer"},
}


def describe(app: FastAPI, *, has_key: bool) -> None:
    """Completes the schema that FastAPI draws up."""
    draw = app.openapi

    def completed() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = draw()
            schema["components"]["schemas"] |= _REQUESTS
            if has_key:
                _ask_for_key(schema)
        return draw()

    app.openapi = completed  # type: ignore[method-assign]


def _ask_for_key(schema: dict[str, Any]) -> None:
    schema["components"]["securitySchemes"] = _KEYS
    for path, operations in schema["paths"].items():
        for operation in operations.values():
            operation["security"] = [] if path in OPEN else [{name: []} for name in _KEYS]
