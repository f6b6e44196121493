"""Tools that ask the client something before they answer: in mid-stream, or by asking to be called again."""

from __future__ import annotations

import json
from typing import Any

from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.prompts.base import UserMessage
from mcp.types import (
    CreateMessageRequest,
    CreateMessageRequestParams,
    CreateMessageResult,
    ElicitRequest,
    ElicitRequestFormParams,
    ElicitResult,
    InputRequiredResult,
    ListRootsRequest,
    ListRootsResult,
    SamplingMessage,
    TextContent,
)

__all__ = ["add_questions", "add_rounds"]

DEFAULTS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "default": "John Doe"},
        "age": {"type": "integer", "default": 30},
        "score": {"type": "number", "default": 95.5},
        "status": {"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
        "verified": {"type": "boolean", "default": True},
    },
}

_TITLED = [{"const": f"value{number}", "title": f"Value {number}"} for number in (1, 2, 3)]
ENUMS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "untitledSingle": {"type": "string", "enum": ["option1", "option2", "option3"]},
        "titledSingle": {"type": "string", "oneOf": _TITLED},
        "untitledMulti": {"type": "array", "items": {"type": "string", "enum": ["option1", "option2", "option3"]}},
        "titledMulti": {"type": "array", "items": {"anyOf": _TITLED}},
        "legacyEnum": {"type": "string", "enum": ["opt1", "opt2"], "enumNames": ["Option One", "Option Two"]},
    },
}


def _one(name: str, type: str = "string") -> dict[str, Any]:
    return {"type": "object", "properties": {name: {"type": type}}, "required": [name]}


def _elicitation(message: str, schema: dict[str, Any]) -> ElicitRequest:
    return ElicitRequest(params=ElicitRequestFormParams(message=message, requested_schema=schema))


def _sampling(text: str) -> CreateMessageRequest:
    params = CreateMessageRequestParams(messages=[_message(text)], max_tokens=100)
    return CreateMessageRequest(params=params)


def _message(text: str) -> SamplingMessage:
    return SamplingMessage(role="user", content=TextContent(type="text", text=text))


def _answer(ctx: Context[Any, Any], question: str, member: str) -> str | None:
    """What the user filled in; None if this question has not been answered, or not in this way."""
    response = (ctx.input_responses or {}).get(question)
    if not isinstance(response, ElicitResult) or not response.content or member not in response.content:
        return None
    return str(response.content[member])


def add_questions(server: MCPServer[Any]) -> None:
    """What revisions before 2026-07-28 do: the server's own request on the call's stream."""

    async def elicit(ctx: Context[Any, Any], message: str, schema: dict[str, Any]) -> str:
        result = await ctx.session.elicit_form(message, schema, related_request_id=ctx.request_context.request_id)
        return f"Elicitation completed: action={result.action}, content={json.dumps(result.content or {})}"

    @server.tool()
    async def test_sampling(prompt: str, ctx: Context[Any, Any]) -> str:
        """Has the client's model answer."""
        result = await ctx.session.create_message(
            [_message(prompt)], max_tokens=100, related_request_id=ctx.request_context.request_id
        )
        return f"LLM response: {result.content.text if isinstance(result.content, TextContent) else 'no text'}"

    @server.tool()
    async def test_elicitation(message: str, ctx: Context[Any, Any]) -> str:
        """Asks the user."""
        return await elicit(ctx, message, _one("response"))

    @server.tool()
    async def test_elicitation_sep1034_defaults(ctx: Context[Any, Any]) -> str:
        """Asks the user, with an answer of every type proposed."""
        return await elicit(ctx, "Please provide user information", DEFAULTS)

    @server.tool()
    async def test_elicitation_sep1330_enums(ctx: Context[Any, Any]) -> str:
        """Asks the user to choose, in every way that there is."""
        return await elicit(ctx, "Please select values", ENUMS)


def add_rounds(server: MCPServer[Any]) -> None:
    """What 2026-07-28 does: the call ends with questions, and is made again with the answers."""

    @server.tool()
    async def test_streaming_elicitation(ctx: Context[Any, Any]) -> str | InputRequiredResult:
        """Asks after it has begun to stream: the question still comes in the result."""
        name = _answer(ctx, "user_name", "name")
        if name is not None:
            return f"Hello, {name}!"
        await ctx.report_progress(1, 2, "about to ask")
        return InputRequiredResult(input_requests={"user_name": _elicitation("What is your name?", _one("name"))})

    @server.tool()
    def test_input_required_result_elicitation(ctx: Context[Any, Any]) -> str | InputRequiredResult:
        """Asks the user."""
        name = _answer(ctx, "user_name", "name")
        if name is not None:
            return f"Hello, {name}!"
        return InputRequiredResult(input_requests={"user_name": _elicitation("What is your name?", _one("name"))})

    @server.tool()
    def test_input_required_result_sampling(ctx: Context[Any, Any]) -> str | InputRequiredResult:
        """Asks the client's model."""
        response = (ctx.input_responses or {}).get("capital_question")
        if isinstance(response, CreateMessageResult) and isinstance(response.content, TextContent):
            return f"The model says: {response.content.text}"
        return InputRequiredResult(input_requests={"capital_question": _sampling("What is the capital of France?")})

    @server.tool()
    def test_input_required_result_list_roots(ctx: Context[Any, Any]) -> str | InputRequiredResult:
        """Asks for the client's roots."""
        response = (ctx.input_responses or {}).get("client_roots")
        if isinstance(response, ListRootsResult):
            return "Roots: " + ", ".join(str(root.uri) for root in response.roots)
        return InputRequiredResult(input_requests={"client_roots": ListRootsRequest()})

    @server.tool()
    def test_input_required_result_request_state(ctx: Context[Any, Any]) -> str | InputRequiredResult:
        """Has the client keep a state for it."""
        if ctx.request_state == "asked" and _answer(ctx, "confirm", "ok") is not None:
            return "state-ok"
        confirm = _elicitation("Please confirm", _one("ok", "boolean"))
        return InputRequiredResult(input_requests={"confirm": confirm}, request_state="asked")

    @server.tool()
    def test_input_required_result_multiple_inputs(ctx: Context[Any, Any]) -> str | InputRequiredResult:
        """Asks for three things at once."""
        questions: dict[str, CreateMessageRequest | ListRootsRequest | ElicitRequest] = {
            "user_name": _elicitation("What is your name?", _one("name")),
            "greeting": _sampling("Generate a greeting"),
            "client_roots": ListRootsRequest(),
        }
        if ctx.request_state == "asked" and questions.keys() <= (ctx.input_responses or {}).keys():
            return "All three have been answered."
        return InputRequiredResult(input_requests=questions, request_state="asked")

    @server.tool()
    def test_input_required_result_multi_round(ctx: Context[Any, Any]) -> str | InputRequiredResult:
        """Asks twice; what was answered first travels in the state."""
        state = json.loads(ctx.request_state or "{}")
        color = _answer(ctx, "step2", "color")
        if "name" in state and color is not None:
            return f"{state['name']} likes {color}."
        name = _answer(ctx, "step1", "name") if state.get("asked") else None
        if name is not None:
            step2 = _elicitation("Step 2: What is your favorite color?", _one("color"))
            return InputRequiredResult(input_requests={"step2": step2}, request_state=json.dumps({"name": name}))
        step1 = _elicitation("Step 1: What is your name?", _one("name"))
        return InputRequiredResult(input_requests={"step1": step1}, request_state=json.dumps({"asked": 1}))

    @server.tool()
    def test_input_required_result_tampered_state(ctx: Context[Any, Any]) -> str | InputRequiredResult:
        """Has a state that nobody may touch; the SDK seals it and refuses what does not open."""
        if ctx.request_state is not None:
            return f"state-ok: {ctx.request_state}"
        confirm = _elicitation("Please confirm", _one("ok", "boolean"))
        return InputRequiredResult(input_requests={"confirm": confirm}, request_state="sealed")

    @server.tool()
    def test_input_required_result_capabilities(ctx: Context[Any, Any]) -> InputRequiredResult:
        """Asks for nothing that this client has not said it can do."""
        declared = ctx.client_capabilities
        questions: dict[str, Any] = {}
        if declared is not None and declared.sampling is not None:
            questions["greeting"] = _sampling("Generate a greeting")
        if declared is not None and declared.elicitation is not None:
            questions["user_name"] = _elicitation("What is your name?", _one("name"))
        return InputRequiredResult(input_requests=questions, request_state="asked")

    @server.prompt()
    def test_input_required_result_prompt(ctx: Context[Any, Any]) -> list[UserMessage] | InputRequiredResult:
        """Asks the user before it prompts the model."""
        context = _answer(ctx, "user_context", "context")
        if context is not None:
            return [UserMessage(TextContent(type="text", text=f"Use this context: {context}"))]
        question = _elicitation("What context should the prompt use?", _one("context"))
        return InputRequiredResult(input_requests={"user_context": question})
