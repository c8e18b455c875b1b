"""What coding agents do with tools of their own, by effect class, and what a catalogue entry may say about them.

The names are those that the agents' makers document for their hooks. A name that is not here, and in no catalogue
entry, is no tool: the agent is told so, and does not do it.
"""

from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from typing import Any, Final

from gateway.core.tool import EffectClass, Kind
from gateway.settings.upstreams import HookUpstream

_READ, _WRITE, _DESTRUCTIVE = EffectClass.READ, EffectClass.WRITE, EffectClass.DESTRUCTIVE
# Whatever starts a program or replaces a file whole may destroy; what sends words out is no read.
_KNOWN: Final = {
    "claude-code": {
        "Agent": (_WRITE, "Starts an agent; what that one does is asked about by itself."),
        "AskUserQuestion": (_READ, "Asks the person."),
        "Bash": (_DESTRUCTIVE, "Runs a shell command."),
        "BashOutput": (_READ, "Reads what a background command wrote."),
        "CronCreate": (_WRITE, "Notes words that it is given again later."),
        "CronDelete": (_WRITE, "Takes such a note back."),
        "CronList": (_READ, "Lists such notes."),
        "Edit": (_WRITE, "Replaces text in a file."),
        "EnterPlanMode": (_READ, "Plans before it acts."),
        "EnterWorktree": (_WRITE, "Makes a working tree of its own and goes there."),
        "ExitPlanMode": (_READ, "Shows the person a plan."),
        "ExitWorktree": (_DESTRUCTIVE, "Leaves that working tree, and may remove it."),
        "Glob": (_READ, "Finds files by name."),
        "Grep": (_READ, "Finds files by content."),
        "KillShell": (_WRITE, "Ends a background command."),
        "ListMcpResourcesTool": (_READ, "Lists resources of MCP servers."),
        "LSP": (_READ, "Asks a language server about code."),
        "MultiEdit": (_WRITE, "Replaces texts in a file."),
        "NotebookEdit": (_WRITE, "Changes a cell of a notebook."),
        "NotebookRead": (_READ, "Reads a notebook."),
        "PowerShell": (_DESTRUCTIVE, "Runs a shell command."),
        "Read": (_READ, "Reads a file."),
        "ReadMcpResourceTool": (_WRITE, "Reads a resource of an MCP server, which may tell that one something."),
        "Skill": (_WRITE, "Loads a skill, which may run programs."),
        "SlashCommand": (_WRITE, "Runs a command of the person's."),
        "Task": (_WRITE, "Starts an agent; what that one does is asked about by itself."),
        "TaskCreate": (_WRITE, "Notes a task of its own."),
        "TaskGet": (_READ, "Reads a task of its own."),
        "TaskList": (_READ, "Lists tasks of its own."),
        "TaskOutput": (_READ, "Reads what a background task wrote."),
        "TaskStop": (_WRITE, "Ends a background task."),
        "TaskUpdate": (_WRITE, "Changes a task of its own."),
        "TodoWrite": (_WRITE, "Writes its own list of things to do."),
        "ToolSearch": (_READ, "Finds tools by name."),
        "WebFetch": (_WRITE, "Fetches an address, which may tell it something."),
        "WebSearch": (_WRITE, "Searches the web, which is told what for."),
        "Write": (_DESTRUCTIVE, "Writes a file whole."),
    },
    "cursor": {
        "Delete": (_DESTRUCTIVE, "Deletes a file."),
        "Edit": (_WRITE, "Replaces text in a file."),
        "Grep": (_READ, "Finds files by content."),
        "Read": (_READ, "Reads a file."),
        "Shell": (_DESTRUCTIVE, "Runs a shell command."),
        "StrReplace": (_WRITE, "Replaces text in a file."),
        "Task": (_WRITE, "Starts an agent; what that one does is asked about by itself."),
        "Write": (_DESTRUCTIVE, "Writes a file whole."),
    },
}
# Nothing here carries it out, so nothing here can hold it to these.
_IN_VAIN: Final = frozenset({"sql", "http", "code", "limits", "measures", "output_schema"})


def known(upstream: HookUpstream) -> Iterator[tuple[str, dict[str, Any]]]:
    """The agent's own tools: the name inside, and what a catalogue entry would say."""
    for name, (effect, words) in _KNOWN.get(upstream.client or "", {}).items():
        yield f"{Kind.HOOK.prefix}{name}", {"effect": effect, "description": words}


def check(members: AbstractSet[str]) -> None:
    """Refuse members of a catalogue entry that would bind nothing.

    Raises:
        ValueError: one is there.
    """
    if found := sorted(members & _IN_VAIN):
        raise ValueError(f"{', '.join(found)}: what an agent does itself cannot be held to that")
