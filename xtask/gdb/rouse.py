"""Lists the tasks of a running Rouse, and where each one waits.

Start the machine with `cargo run -- --gdb`; it waits for the debugger and says what to type. Then, in gdb:

    (gdb) continue            until it does what you want to look at; then ^C
    (gdb) rouse-tasks         all tasks: number, state, name, the line of the .await in which it waits
    (gdb) rouse-tasks sh      those whose name contains "sh"

The list is the executor's own registry (executor/src/task/registry.rs): a chain through all cells. Offsets come from the
debugging information, so that a field may move without this script being changed; names are those of the code.
"""

import struct

import gdb

STATES = {0: "idle", 1: "queued", 2: "running", 3: "running, woken", 4: "done", 5: "done", 6: "done", 7: "done"}


def offset(kind, *path):
    """The offset in bytes of a field, named by its path from a type."""
    total = 0
    for name in path:
        field = next(field for field in kind.fields() if field.name == name)
        total += field.bitpos // 8
        kind = field.type.strip_typedefs()
    return total


def word(address):
    return struct.unpack("<Q", gdb.selected_inferior().read_memory(address, 8))[0]


def text(address):
    """A `&str`: where it is, and how long."""
    start, length = word(address), word(address + 8)
    return bytes(gdb.selected_inferior().read_memory(start, min(length, 200))).decode("utf-8", "replace")


def within(value, wanted, depth=0):
    """The first part of a value whose type's name contains `wanted`; pointers are followed."""
    kind = value.type.strip_typedefs()
    if wanted in str(kind).split("<")[0]:
        return value
    if depth > 12:
        return None
    if kind.code == gdb.TYPE_CODE_PTR:
        target = kind.target().strip_typedefs()
        return within(value.dereference(), wanted, depth + 1) if target.code == gdb.TYPE_CODE_STRUCT else None
    if kind.code in (gdb.TYPE_CODE_STRUCT, gdb.TYPE_CODE_UNION):
        for field in kind.fields():
            if hasattr(field, "bitpos") and not field.is_base_class:
                found = within(value[field], wanted, depth + 1)
                if found is not None:
                    return found
    return None


def tasks():
    """Each task's cell, oldest first."""
    executor = gdb.parse_and_eval("rouse::tasks::EXECUTOR")
    registry = within(executor, "executor::task::registry::Registry")
    cells = within(registry, "executor::list::List") if registry is not None else None
    if cells is None:
        raise gdb.GdbError("the executor is not there yet")
    header = gdb.lookup_type("executor::task::Header")
    links = gdb.lookup_type("executor::list::Links")
    registered = offset(header, "registered")
    following = offset(links, "next")
    link = word(int(cells.address) + offset(cells.type.strip_typedefs(), "head"))
    while link:
        yield link - registered
        link = word(link + following)


def place(location):
    """A `&'static Location`, as file:line."""
    if not location:
        return "-"
    kind = gdb.lookup_type("core::panic::location::Location")
    names = [field.name for field in kind.fields()]
    file = text(location + offset(kind, "filename" if "filename" in names else "file"))
    line = struct.unpack("<I", gdb.selected_inferior().read_memory(location + offset(kind, "line"), 4))[0]
    return f"{file}:{line}"


class RouseTasks(gdb.Command):
    """List Rouse's tasks, and where each one waits: rouse-tasks [PART-OF-NAME]"""

    def __init__(self):
        super().__init__("rouse-tasks", gdb.COMMAND_STATUS)

    def invoke(self, argument, from_tty):
        header = gdb.lookup_type("executor::task::Header")
        at = {name: offset(header, "facts", name) for name in ("id", "name", "cpu", "waits_at")}
        state_at = offset(header, "state")
        for cell in tasks():
            name = text(cell + at["name"])
            if argument in name:
                state = STATES[word(cell + state_at) & 7]
                number, cpu, waits = (word(cell + at[name]) for name in ("id", "cpu", "waits_at"))
                print(f"{number:6}  cpu {cpu}  {state:15} {name:24} {place(waits)}")


RouseTasks()
