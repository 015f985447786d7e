"""The programs of the tutorial that want its mail server, with one."""

from __future__ import annotations

import re
import subprocess
import sys
from email.message import Message
from pathlib import Path

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.handlers import Mailbox

from tests.mailservers import free_port

PAGE = Path(__file__).parent.parent / "docs" / "tutorial" / "index.md"
PROGRAM = re.compile(r"<!-- not run: needs the mail server;.*?-->\n```python.*?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(("number", "errors"), [(0, 1), (1, 9)])
def test_program_of_the_tutorial_fills_the_mailbox(number: int, errors: int, tmp_path: Path) -> None:
    """A program of the tutorial prints what the page says, and its errors are in the mailbox."""
    port = free_port()
    handler = Mailbox(tmp_path / "mail")
    server = Controller(handler, hostname="127.0.0.1", port=port)
    server.start()
    try:
        code = PROGRAM.findall(PAGE.read_text("utf-8"))[number].replace('"localhost", 8025', f'"127.0.0.1", {port}')
        program = tmp_path / "shop.py"
        program.write_text(code.replace("asyncio.sleep(1)", "asyncio.sleep(0)"), "utf-8")
        ended = subprocess.run(
            [sys.executable, "-W", "error", str(program)], capture_output=True, text=True, timeout=30, check=True
        )
    finally:
        server.stop()

    mails = [text_of(mail) for mail in handler.mailbox]
    assert f"filtered, {errors} delivered" in ended.stdout
    assert sum(mail.count("ERROR shop: article") for mail in mails) == errors


def text_of(mail: Message) -> str:
    """The plain text of a mail, decoded."""
    (text,) = (part for part in mail.walk() if part.get_content_type() == "text/plain")
    payload = text.get_payload(decode=True)
    assert isinstance(payload, bytes)
    return payload.decode()
