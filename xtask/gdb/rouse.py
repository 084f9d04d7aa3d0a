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

# Names are Rust's, whatever the code is in which the machine stopped.
gdb.execute("set language rust")

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


def inside(kind, wanted):
    """Where in a structure the first part of type `wanted` lies, however deep; None if there is none. Pointers are not followed."""
    kind = kind.strip_typedefs()
    if str(kind).split("<")[0].removeprefix("struct ") == wanted:
        return 0
    if kind.code not in (gdb.TYPE_CODE_STRUCT, gdb.TYPE_CODE_UNION):
        return None
    for field in kind.fields():
        if hasattr(field, "bitpos") and field.type is not None:
            below = inside(field.type, wanted)
            if below is not None:
                return field.bitpos // 8 + below
    return None


def tasks():
    """Each task's cell, oldest first."""
    handle = gdb.parse_and_eval("rouse::tasks::EXECUTOR")
    # The cell holds the handle, which is a pointer.
    shared = word(int(handle.address) + offset(handle.type, "inner"))
    if shared == 0:
        raise gdb.GdbError("the executor is not there yet")
    kind = gdb.lookup_type("executor::executor::Shared<rouse::tasks::ThisMachine>")
    cells = gdb.lookup_type("executor::list::List")
    header = gdb.lookup_type("executor::task::Header")
    links = gdb.lookup_type("executor::list::Links")
    head = shared + offset(kind, "tasks") + inside(named(kind, "tasks"), "executor::list::List") + offset(cells, "head")
    registered = offset(header, "registered")
    following = offset(links, "next")
    link = word(head)
    while link:
        yield link - registered
        link = word(link + following)


def named(kind, name):
    """The type of a field."""
    return next(field.type.strip_typedefs() for field in kind.fields() if field.name == name)


def place(location, kind):
    """A `&'static Location`, as file:line."""
    if not location:
        return "-"
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
        # The type has the name of its module, so it is found by what points to it: an AtomicPtr, with an UnsafeCell in it.
        atomic = named(named(header, "facts"), "waits_at")
        location = named(named(atomic, "p"), "value").target()
        for cell in tasks():
            name = text(cell + at["name"])
            if argument in name:
                state = STATES[word(cell + state_at) & 7]
                number, cpu, waits = (word(cell + at[name]) for name in ("id", "cpu", "waits_at"))
                print(f"{number:6}  cpu {cpu}  {state:15} {name:24} {place(waits, location)}")


RouseTasks()
