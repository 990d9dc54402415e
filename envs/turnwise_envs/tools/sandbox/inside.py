"""What runs inside the sandbox: sets its own limits, then runs the programs that stand on standard input.

It is sent there as text (``python -c``) with the limits as arguments, and imports as little as it can, because it starts
once a call. As in a notebook, the value of a last line that is an expression is printed, and a program sees what those before
it defined; only the last one is heard.
"""

import _ast
import resource
import sys


def main() -> None:
    cpu_seconds, memory_bytes, file_bytes, open_files = map(int, sys.argv[1:])
    *earlier, source = _programs(sys.stdin.buffer.read())
    for which, soft, hard in (
        (resource.RLIMIT_CPU, cpu_seconds, cpu_seconds + 1),  # the signal of the soft one can be caught
        (resource.RLIMIT_AS, memory_bytes, memory_bytes),
        (resource.RLIMIT_FSIZE, file_bytes, file_bytes),
        (resource.RLIMIT_NOFILE, open_files, open_files),
        (resource.RLIMIT_NPROC, 0, 0),
        (resource.RLIMIT_CORE, 0, 0),
    ):
        resource.setrlimit(which, (soft, hard))
    del sys.argv[1:]
    names: dict[str, object] = {"__name__": "__main__", "__builtins__": __builtins__}
    out, err = sys.stdout, sys.stderr
    for program in earlier:
        sys.stdout = sys.stderr = _Mute()
        try:  # noqa: SIM105  contextlib is not imported for this
            _run(program, names)
        except BaseException:
            pass
    sys.stdout, sys.stderr = out, err
    try:
        _run(source, names)
    except SystemExit:
        raise
    except BaseException as error:
        sys.stdout.flush()
        own = error.__traceback__ and error.__traceback__.tb_next  # the frames of main and _run, which teach nothing
        sys.__excepthook__(type(error), error.with_traceback(own and own.tb_next), None)
        sys.exit(1)


class _Mute:
    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        pass


def _programs(script: bytes) -> list[str]:
    lengths, _, rest = script.partition(b"\n")
    found, start = [], 0
    for length in map(int, lengths.split()):
        found.append(rest[start : start + length].decode())
        start += length
    return found


def _run(source: str, names: dict[str, object]) -> None:
    tree = compile(source, "<program>", "exec", flags=0x400)  # ast.PyCF_ONLY_AST, without the cost of importing ast
    assert isinstance(tree, _ast.Module)
    shown = tree.body.pop() if tree.body and isinstance(tree.body[-1], _ast.Expr) else None
    exec(compile(tree, "<program>", "exec"), names)
    if isinstance(shown, _ast.Expr):
        value = eval(compile(_ast.Expression(shown.value), "<program>", "eval"), names)
        if value is not None:
            print(repr(value))


if __name__ == "__main__":
    main()
