"""Runs calls with the official Python client and prints their results.

    client.py auto|legacy|REVISION [crowd]   < {"server": ..., "steps": [["call_tool", {"name": ...}], ...]}

A server is {"command", "args", "env", "cwd"} for stdio, or {"url", "token"}. The output is
{"protocol", "server", "steps": [{"result": ...} or {"error": ...}, each with "progress"]}. With
`crowd`, each step has its own client; all clients connect first, then all call concurrently.
"""

import asyncio
import json
import sys

from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp_types import PromptReference, ResourceTemplateReference


def transport(server):
    if "url" not in server:
        return StdioServerParameters(**server)
    if "token" not in server:
        return server["url"]
    import httpx2

    headers = {"Authorization": f"Bearer {server['token']}"}
    return streamable_http_client(server["url"], http_client=httpx2.AsyncClient(headers=headers, timeout=60))


async def perform(client, method, arguments):
    progress = []

    async def on_progress(done, total, message):
        progress.append({"done": done, "total": total, "message": message})

    if method == "call_tool":
        arguments = {**arguments, "progress_callback": on_progress}
    if method == "complete":
        reference = PromptReference if "name" in arguments["ref"] else ResourceTemplateReference
        arguments = {**arguments, "ref": reference(**arguments["ref"])}
    try:
        result = await getattr(client, method)(**arguments)
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}", "progress": progress}
    return {"result": result.model_dump(mode="json", by_alias=True, exclude_none=True), "progress": progress}


async def alone(wanted):
    async with Client(transport(wanted["server"]), mode=sys.argv[1]) as client:
        steps = [await perform(client, method, arguments) for method, arguments in wanted["steps"]]
        server = client.server_info.model_dump(mode="json", exclude_none=True) if client.server_info else None
        return {"protocol": str(client.protocol_version), "server": server, "steps": steps}


async def crowd(wanted):
    connected = asyncio.Barrier(len(wanted["steps"]))

    async def one(method, arguments):
        async with Client(transport(wanted["server"]), mode=sys.argv[1]) as client:
            await connected.wait()
            return await perform(client, method, arguments)

    return {"steps": await asyncio.gather(*(one(*step) for step in wanted["steps"]))}


work = crowd if "crowd" in sys.argv[2:] else alone
print(json.dumps(asyncio.run(work(json.load(sys.stdin)))))
