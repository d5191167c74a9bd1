"""The program as the measuring tools call it, and the demonstration's data as they read it.  Standard library only."""
import json
import subprocess
import sys


def run(program, *command):
    """Standard output of `program COMMAND...`; a failure ends the tool with the program's message."""
    r = subprocess.run([program, *map(str, command)], capture_output=True, text=True)
    if r.returncode:
        sys.exit(f"gist {' '.join(map(str, command))}\n{r.stderr}")
    return r.stdout


def run_json(program, *command):
    return json.loads(run(program, *command, "--json", "-q"))


def read_tasks(path, most):
    """[(prompt, its rows)] of the first prompts of a file of rows {instruction, input, output}."""
    tasks = {}
    for line in open(path, encoding="utf-8"):
        row = json.loads(line)
        tasks.setdefault(row["instruction"], []).append(row)
    return list(tasks.items())[:most]


def write_rows(path, rows):
    with open(path, "w", encoding="utf-8") as f:
        for row in rows:
            f.write(json.dumps(row) + "\n")


def compress(program, model, prompt, path, kv="bf16"):
    """The prompt's gist at the largest k of 1, 2, 4, 8, 16 that compresses it tenfold; what `compress` reports."""
    at = lambda k: run_json(program, "compress", "-m", model, "-p", prompt, "-k", k, "-o", path, "--kv", kv)
    tokens = at(1)["prompt_tokens"]
    return at(max([k for k in (1, 2, 4, 8, 16) if tokens / k >= 10] or [1]))


def is_right(answer, row):
    return answer["text"].strip() == row["output"].strip()
