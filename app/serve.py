"""The page on a port of this machine, until Ctrl-C."""

import logging
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from vqprior.configs.commands import App
from vqprior.configs.errors import UserError
from vqprior.runtime.interrupt import heeded
from vqprior.runtime.processes import say
from vqprior.runtime.run_dir import RunDir

from .kept import FILE, NewestKept

if TYPE_CHECKING:
    import gradio as gr
    from fastapi import FastAPI

POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:"
)
"""What a browser is told to fetch: nothing from another machine. Gradio's own code needs inline and eval."""


def serve(settings: App, run: RunDir) -> None:
    """Show the page of a run until the process is told to stop.

    Raises:
        UserError: Gradio is not installed, the port is taken, or as `Generator.from_run`.
    """
    with TemporaryDirectory() as files:
        os.environ.update(GRADIO_ANALYTICS_ENABLED="False", GRADIO_TEMP_DIR=files, HF_HUB_OFFLINE="1")
        try:
            import uvicorn

            from .page import build
            from .parts import CSS
        except ImportError as error:
            raise UserError(
                f"the page needs the extra `app` ({error}): pip install 'vqprior[app]'"
            ) from error
        from .studio import Studio

        listener = _listener(settings)
        host, port = listener.getsockname()[:2]
        words = f"app: http://{host}:{port} shows {run.path}; Ctrl-C ends it"
        app = application(build(Studio.from_run(run)), CSS, Path(files), lambda: say(words))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2))
        # Told to end, it says of each open page that its requests were cancelled, with a traceback
        logging.getLogger("uvicorn.error").addFilter(lambda _: not server.should_exit)
        with heeded():  # uvicorn ends by a signal, and sends it again: the folder is to go first
            server.run(sockets=[listener])


def application(page: "gr.Blocks", css: str, files: Path, ready: Callable[[], None]) -> "FastAPI":
    """The page as an application that fetches nothing from elsewhere and reports nothing; `ready` is called
    when it begins to answer, and to heed signals. `files` is the folder of uploads and downloads."""
    import gradio as gr
    from fastapi import FastAPI

    @asynccontextmanager
    async def announced(_app: FastAPI) -> AsyncIterator[None]:
        ready()
        yield

    app = FastAPI(lifespan=announced, docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(NewestKept, folder=files)
    app.add_middleware(KeptToThisMachine)
    fonts = dict(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    theme = gr.themes.Default(primary_hue="indigo", **fonts)
    theme.set(body_text_color_subdued="*neutral_600")  # Gradio's own is too pale to read on white
    looks = dict(theme=theme, css=css, footer_links=[])
    return gr.mount_gradio_app(
        app, page, path="/", run_history=False, max_file_size=FILE, ssr_mode=False, pwa=False, **looks
    )


class KeptToThisMachine:
    """An application (ASGI) whose answers carry the policy."""

    def __init__(self, app: Callable):
        self.app = app

    async def __call__(self, scope: dict[str, Any], receive: Callable, send: Callable) -> None:
        async def with_policy(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                headers = [*message.get("headers", ()), (b"content-security-policy", POLICY.encode())]
                message = {**message, "headers": headers}
            await send(message)

        await self.app(scope, receive, with_policy)


def _listener(settings: App) -> socket.socket:
    """A socket on the address; raises as `serve`."""
    try:
        return socket.create_server((settings.host, settings.port))
    except (OSError, OverflowError) as error:
        where = f"{settings.host}, port {settings.port}"
        raise UserError(f"the page cannot listen on {where} ({error}); try another one: --port 0") from error
