"""An engine as a process of its own, with vLLM's or NIM's HTTP API, that can misbehave.

Its options are those of a command line: `--port 8000 --fault stale_kv`. What it answers is computed
by ``word_model``; each fault is one that real engines have had, behind a 200.
"""

import argparse
import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.support import word_model
from tests.support.word_model import END, KeysAndValues, WordAdapter

BASE_NAME = "the-base"

FAULTS = (
    "base_under_name",  # the base answers, with the adapter's name in `model`
    "nothing_applied",  # loaded, but no layer matched
    "another_weights",  # the new name has the weights of an older one
    "stale_kv",  # the prefix cache is keyed by tokens only
    "bleed_after_add",  # after a load, a batch of several adapters mixes them
    "ok_without_loading",  # 200, and nothing is loaded
    "already_with_another_root",  # 400 "already loaded", from another folder
    "lost_in_restart",  # restarts after the load, without the adapter
    "slow",  # answers, but too late
    "slow_load",  # loads in half a minute
    "hangs",  # takes a request and never answers
    "cuts_stream",  # closes the connection in the middle of an answer
    "watcher_ignores",  # NIM: the folder is never read again
    "unload_race",  # an unload under way takes the new adapter with it
    "wrong_base",  # another base under the right name
    "names_the_base",  # answers right, but says that the base did
    "any_name",  # answers unknown names with the base
    "busy",  # refuses requests with 503, as a full queue does
    "lists_nothing",  # fails to list what it has loaded
    "keeps",  # fails to unload
)


@dataclass
class State:
    faults: set[str]
    delay: float
    nim: Path | None
    refresh: float
    dialect: str = "vllm"
    adapters: dict[str, tuple[str, WordAdapter]] = field(default_factory=dict[str, Any])
    cache: dict[object, KeysAndValues] = field(default_factory=dict[object, KeysAndValues])
    in_flight: Counter[str] = field(default_factory=Counter[str])
    loads: list[str] = field(default_factory=list[str])
    lists_after_load: int = 0
    requests_after_load: int = 0
    started: float = field(default_factory=time.time)

    @property
    def base(self) -> WordAdapter:
        return WordAdapter("another base") if "wrong_base" in self.faults else word_model.BASE

    def forget(self) -> None:
        """Become as after a start, without faults."""
        self.faults.clear()
        self.adapters.clear()
        self.cache.clear()
        self.loads.clear()
        self.lists_after_load = self.requests_after_load = 0

    def weights(self, name: str) -> WordAdapter:
        if name == BASE_NAME:
            return self.base
        adapter = self.adapters[name][1]
        is_newest = bool(self.loads) and self.loads[-1] == name
        if "base_under_name" in self.faults or ("nothing_applied" in self.faults and is_newest):
            return self.base
        if "another_weights" in self.faults and is_newest and len(self.adapters) > 1:
            return next(other for key, (_, other) in self.adapters.items() if key != name)
        others = [other for other in self.in_flight if other != name and self.in_flight[other]]
        if "bleed_after_add" in self.faults and others and self.requests_after_load < 200:
            return self.base if others[0] == BASE_NAME else self.adapters[others[0]][1]
        if self.base != word_model.BASE:
            return WordAdapter(f"{adapter.key} on another base", adapter.word)
        return adapter


def error(status: int, message: str, kind: str = "BadRequestError") -> web.Response:
    body = {"error": {"message": message, "type": kind, "param": None, "code": status}}
    return web.json_response(body, status=status)


def make_app(state: State) -> web.Application:
    routes = web.RouteTableDef()

    @routes.post("/misbehave")
    async def misbehave(request: web.Request) -> web.Response:
        state.faults = set(await request.json())
        return web.json_response({})

    @routes.post("/reset")
    async def reset(_: web.Request) -> web.Response:
        state.forget()
        return web.json_response({})

    @routes.get("/version")
    async def version(_: web.Request) -> web.Response:
        return web.json_response({"version": "0.32.0"})

    @routes.get("/health")
    @routes.get("/v1/health/ready")
    async def health(_: web.Request) -> web.Response:
        return web.json_response({})

    @routes.get("/metrics")
    @routes.get("/v1/metrics")
    async def metrics(_: web.Request) -> web.Response:
        lines = f"process_start_time_seconds {state.started}\n"
        return web.Response(text=lines + f"requests_after_load {state.requests_after_load}\n")

    @routes.get("/v1/models")
    async def models(_: web.Request) -> web.Response:
        state.lists_after_load += 1
        if "lists_nothing" in state.faults:
            return error(500, "Internal Server Error", "InternalServerError")
        data = [{"id": BASE_NAME, "root": "/bases/the-base", "parent": None}]
        data += [
            {"id": name, "root": root, "parent": BASE_NAME}
            for name, (root, _) in state.adapters.items()
        ]
        if "lost_in_restart" in state.faults and state.loads and state.lists_after_load == 1:
            state.adapters.clear()
            state.cache.clear()
            state.started = time.time()
        return web.json_response({"object": "list", "data": data})

    @routes.post("/v1/load_lora_adapter")
    async def load(request: web.Request) -> web.Response:
        if state.nim is not None:
            return error(404, "Not Found", "NotFoundError")
        body = await request.json()
        name, path = body.get("lora_name"), body.get("lora_path")
        if not name or not path:
            return error(400, "Both 'lora_name' and 'lora_path' must be provided.")
        if "slow_load" in state.faults:
            await asyncio.sleep(30)
        if "already_with_another_root" in state.faults and name not in state.adapters:
            state.adapters[name] = "/old/folder", word_model.WordAdapter("old", "old")
        if name in state.adapters:
            text = f"The lora adapter '{name}' has already been loaded."
            return error(400, text, "InvalidUserInput")
        if not Path(path).is_dir():
            return error(404, f"Loading lora {name} failed: No adapter found for {path}")
        if "ok_without_loading" not in state.faults:
            state.adapters[name] = path, word_model.read_adapter(Path(path))
        state.loads.append(name)
        state.lists_after_load = state.requests_after_load = 0
        return web.Response(text=f"Success: LoRA adapter '{name}' added successfully.")

    @routes.post("/v1/unload_lora_adapter")
    async def unload(request: web.Request) -> web.Response:
        name = (await request.json()).get("lora_name")
        if "keeps" in state.faults:
            return error(500, "Internal Server Error", "InternalServerError")
        if name not in state.adapters:
            return error(404, f"The lora adapter '{name}' cannot be found.", "NotFoundError")
        del state.adapters[name]
        return web.Response(text=f"Success: LoRA adapter '{name}' removed successfully.")

    @routes.post("/v1/completions")
    async def completions(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        name = body["model"]
        if state.dialect == "sglang":  # a name without the base's is taken for the base
            name = name.partition(":")[2] if ":" in name else BASE_NAME
        state.requests_after_load += 1
        if "unload_race" in state.faults and state.loads and state.requests_after_load == 3:
            state.adapters.pop(state.loads[-1], None)
        if name != BASE_NAME and name not in state.adapters:
            if "any_name" not in state.faults:
                return error(404, f"The model `{name}` does not exist.", "NotFoundError")
            state.adapters[name] = "", state.base
        if "busy" in state.faults:
            return error(503, "More than 72 requests are waiting.", "ServiceUnavailable")
        if "hangs" in state.faults and state.loads:
            await asyncio.sleep(3600)
        if "slow" in state.faults and state.loads and name == state.loads[-1]:
            await asyncio.sleep(4)
        state.in_flight[name] += 1
        try:
            await asyncio.sleep(state.delay)
            if "prompt_logprobs" in body:
                return web.json_response(scored(state, name, body))
            return await answer(state, name, body, request)
        finally:
            state.in_flight[name] -= 1

    @routes.get("/get_server_info")
    async def server_info(_: web.Request) -> web.Response:
        info = {"served_model_name": BASE_NAME, "enable_lora": True, "max_lora_rank": 16}
        return web.json_response(info | {"max_loaded_loras": 8, "dp_size": 1})

    @routes.get("/info")
    async def info(_: web.Request) -> web.Response:
        return web.json_response({"model_id": BASE_NAME})

    @routes.post("/load_lora_adapter")
    async def sglang_load(request: web.Request) -> web.Response:
        body = await request.json()
        path = Path(body["lora_path"])
        if not path.is_dir():
            refusal = {"success": False, "error_message": f"no adapter at {path}"}
            return web.json_response(refusal, status=400)
        state.adapters[body["lora_name"]] = str(path), word_model.read_adapter(path)
        state.loads.append(body["lora_name"])
        return web.json_response({"success": True})

    @routes.post("/unload_lora_adapter")
    async def sglang_unload(request: web.Request) -> web.Response:
        name = (await request.json())["lora_name"]
        if "hangs" in state.faults:
            await asyncio.sleep(3600)
        status = 200 if state.adapters.pop(name, None) else 400
        return web.json_response({"success": status == 200}, status=status)

    @routes.post("/generate")
    async def generate(request: web.Request) -> web.Response:
        body = await request.json()
        if "input_ids" in body:
            return web.json_response(sglang_scores(state, body))
        name = lorax_adapter(state, body)
        if name is None:
            return web.json_response({"error": "not found at the Hub"}, status=404)
        tokens = [*body["inputs"].encode()]
        logprobs = word_model.score(state.weights(name), tokens[:1], tokens[1:])
        prefill = [{"id": tokens[0], "text": "", "logprob": None}]
        prefill += [
            {"id": token, "text": chr(token), "logprob": logprob}
            for token, logprob in zip(tokens[1:], logprobs, strict=True)
        ]
        return web.json_response({"generated_text": "x", "details": {"prefill": prefill}})

    @routes.post("/generate_stream")
    async def generate_stream(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        name = lorax_adapter(state, body)
        if name is None:
            return web.json_response({"error": "not found at the Hub"}, status=404)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        weights, tokens = state.weights(name), [*body["inputs"].encode()]
        cache, limit = word_model.fill(weights, tokens), body["parameters"]["max_new_tokens"]
        for made in range(1, limit + 1):
            options = word_model.next_logprobs(cache, weights)
            token = max(range(word_model.VOCABULARY), key=options.__getitem__)
            is_end = token == END
            shown = {"text": "" if is_end else chr(token), "special": is_end}
            event: dict[str, Any] = {"token": {"id": token, "logprob": options[token]} | shown}
            if is_end or made == limit:
                reason = "eos_token" if is_end else "length"
                event["details"] = {"finish_reason": reason, "generated_tokens": made}
            await response.write(f"data: {json.dumps(event)}\n\n".encode())
            if is_end:
                break
            word_model.extend(cache, weights, [token])
        return response

    app = web.Application(client_max_size=64 * 2**20)
    app.add_routes(routes)
    return app


def sglang_scores(state: State, body: dict[str, Any]) -> dict[str, Any]:
    tokens, name = body["input_ids"], body.get("lora_path", BASE_NAME)
    logprobs = word_model.score(state.weights(name), tokens[:1], tokens[1:])
    listed = [[None, tokens[0], None]]
    listed += [[value, token, None] for value, token in zip(logprobs, tokens[1:], strict=True)]
    return {"text": "x", "meta_info": {"input_token_logprobs": listed}}


def lorax_adapter(state: State, body: dict[str, Any]) -> str | None:
    """Load the adapter that a request names, as LoRAX does; ``None`` if it isn't there."""
    parameters = body["parameters"]
    path = parameters.get("adapter_id")
    if path is None:
        return BASE_NAME
    if parameters.get("adapter_source") != "local" or not Path(path).is_dir():
        return None
    state.adapters.setdefault(path, (path, word_model.read_adapter(Path(path))))
    return path


def tokens_of(body: dict[str, Any]) -> list[int]:
    prompt = body["prompt"]
    return [*prompt.encode()] if isinstance(prompt, str) else list(prompt)


def scored(state: State, name: str, body: dict[str, Any]) -> dict[str, Any]:
    """Score a prompt's tokens; as in vLLM, this does not read the prefix cache."""
    tokens, weights = tokens_of(body), state.weights(name)
    logprobs = word_model.score(weights, tokens[:1], tokens[1:])
    positions: list[Any] = [None]
    positions += [
        {str(token): {"logprob": logprob, "rank": 1, "decoded_token": chr(token)}}
        for token, logprob in zip(tokens[1:], logprobs, strict=True)
    ]
    choice = {"index": 0, "text": "x", "finish_reason": "length", "prompt_logprobs": positions}
    return {
        "id": "cmpl-1",
        "object": "text_completion",
        "model": answered_by(state, body["model"]),
        "choices": [choice],
    }


def answered_by(state: State, asked: str) -> str:
    return BASE_NAME if "names_the_base" in state.faults else asked


async def answer(
    state: State, name: str, body: dict[str, Any], request: web.Request
) -> web.StreamResponse:
    """Stream a greedy answer, with the prefix cache."""
    tokens, weights = tokens_of(body), state.weights(name)
    root = state.adapters[name][0] if name in state.adapters else ""
    key = tuple(tokens) if "stale_kv" in state.faults else (name, root, tuple(tokens))
    if key not in state.cache:
        state.cache[key] = word_model.fill(weights, tokens)
    cache = state.cache[key].copy()
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)

    async def send(content: object) -> None:
        text = content if isinstance(content, str) else json.dumps(content)
        await response.write(f"data: {text}\n\n".encode())

    made, finish = 0, "length"
    chunk = {
        "id": "cmpl-1",
        "object": "text_completion",
        "model": answered_by(state, body["model"]),
    }
    while made < body["max_tokens"]:
        options = word_model.next_logprobs(cache, weights)
        token = max(range(word_model.VOCABULARY), key=options.__getitem__)
        if token == END:
            finish = "stop"
            break
        word_model.extend(cache, weights, [token])
        made += 1
        logprobs = None
        if body.get("logprobs") is not None:
            names = {"tokens": [chr(token)], "token_logprobs": [options[token]]}
            logprobs = names | {"top_logprobs": [{chr(token): options[token]}]}
        choice = {"index": 0, "text": chr(token), "logprobs": logprobs, "finish_reason": None}
        await send(chunk | {"choices": [choice]})
        if "cuts_stream" in state.faults and made == 2:
            assert request.transport is not None
            request.transport.abort()
            return response
    await send(chunk | {"choices": [{"index": 0, "text": "", "finish_reason": finish}]})
    usage = {"prompt_tokens": len(tokens), "completion_tokens": made}
    await send(chunk | {"choices": [], "usage": usage})
    await send("[DONE]")
    await response.write_eof()
    return response


async def watch(state: State, folder: Path) -> None:
    """Read the folder of adapters again and again, as NIM does: one level, whole folders only."""
    while True:
        if "watcher_ignores" not in state.faults:
            present = {
                path.name: path
                for path in folder.iterdir()
                if (path / "adapter_config.json").is_file()
                and (path / "adapter_model.safetensors").is_file()
            }
            for name in state.adapters.keys() - present.keys():
                del state.adapters[name]
            for name in sorted(present.keys() - state.adapters.keys()):
                adapter = word_model.read_adapter(present[name])
                state.adapters[name] = str(present[name]), adapter
                state.loads.append(name)
        await asyncio.sleep(state.refresh)


async def _serve(ready: Callable[[int], None], arguments: argparse.Namespace) -> None:
    state = State(
        set(arguments.fault), arguments.delay, arguments.nim, arguments.refresh, arguments.dialect
    )
    runner = web.AppRunner(make_app(state), access_log=None, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", arguments.port)
    await site.start()
    ready(runner.addresses[0][1])
    if arguments.nim is not None:
        await watch(state, arguments.nim)
    await asyncio.Event().wait()


def serve(ready: Callable[[int], None], options: Sequence[str]) -> None:
    """Listen on a free port or the named one, say which, and serve until it is killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--fault", action="append", default=[], choices=FAULTS)
    parser.add_argument("--delay", type=float, default=0.002)
    parser.add_argument("--nim", type=Path)
    parser.add_argument("--dialect", default="vllm", choices=["vllm", "sglang", "lorax"])
    parser.add_argument("--refresh", type=float, default=0.2)
    asyncio.run(_serve(ready, parser.parse_args(options)))
