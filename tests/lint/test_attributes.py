"""docs/attributes.md against proto/config.proto and the tests it names: neither has what the other has not."""

import re

import tree

NUMBER = {"uint32": (0, 2**32 - 1), "uint64": (0, 2**64 - 1)}
FIELD = re.compile(r"(optional |repeated )?(\w+) (\w+) = \d+(?: \[(.*?)\])?;")


def messages():
    """Message name → its fields: (name, type, repeated, options), of proto/config.proto."""
    text = re.sub(r"//[^\n]*", "", tree.text("proto/config.proto"))
    return {name: [(field[2], field[1], field[0] == "repeated ", field[3]) for field in FIELD.findall(body)]
            for name, body in re.findall(r"message (\w+) \{(.*?)\}\s*(?=message|extend|$)", text, re.DOTALL)}


def leaves(name, prefix=""):
    """Path → (type, options) of the fields below a message; lists of messages as `name[].`."""
    known = messages()
    for field, kind, repeated, options in known[name]:
        path = prefix + field
        if kind in known:
            yield from leaves(kind, f"{path}[]." if repeated else f"{path}.")
        else:
            yield path, (kind, options)


def rows():
    """Section → rows as lists of cells, of the page's tables."""
    section, found = "", {}
    for line in tree.text("docs/attributes.md").splitlines():
        if line.startswith("#"):
            section = line.lstrip("# ")
        elif line.startswith("| `"):
            found.setdefault(section, []).append([cell.strip() for cell in line.strip("|").split("|")])
    return found


def written():
    """Path → values, as the page has them."""
    of = rows()
    table = {row[0].strip("`"): row[1] for row in of["Target groups"]}
    table |= {"attributes." + row[0].strip("`"): row[1] for row in of["Attributes"]}
    table |= {"rate_limits." + row[0].strip("`"): row[1] for row in of["Rate limits"]}
    return table | {"health_check." + row[0].strip("`"): row[1] for row in of["Health checks"]}


def test_every_field_has_its_row_and_every_row_its_field():
    fields = {path for path, _ in leaves("TargetGroup")} | {path for path, _ in leaves("Listener") if path.startswith(("target_groups[]", "rate_limits."))}
    assert fields == set(written())


def values(kind, options):
    """What the page has to say of a field; None: what only cp/config knows."""
    if kind == "bool":
        return "true, false"
    if choices := re.search(r'choices\) = "([^"]*)"', options):
        return choices.group(1).replace(" | ", ", ")
    if limits := re.search(r"min: (\d+), max: (\d+)", options):
        return f"{limits.group(1)}–{limits.group(2)}"
    if kind in NUMBER:
        return "{}–{}".format(*NUMBER[kind])
    return None


def test_values_are_those_of_the_schema():
    page = written()
    wrong = {}
    for path, (kind, options) in [*leaves("TargetGroup"), *leaves("Listener")]:
        wanted = values(kind, options)
        if path not in page or wanted is None or page[path].removeprefix("a prime, ") == wanted:
            continue
        if path == "attributes.slow_start.duration_seconds" and page[path] == "0, 30–900":  # cp/config/validate_group
            continue
        wrong[path] = (page[path], wanted)
    assert not wrong


def test_the_tests_it_names_are_there():
    missing = []
    for row in (row for section in rows().values() for row in section):
        file, _, words = row[-1].partition(": ")
        if not words or words not in tree.text(f"tests/{file}"):
            missing.append(row[-1])
    assert not missing


def test_every_state_and_reason_has_a_row():
    reasons = set(re.findall(r'return "(\w+)"', tree.text("cp/model/model.cc").partition("to_string(StateReason")[2].partition("\n}")[0]))
    shown = {row[1] for row in rows()["States and reasons"]}
    assert reasons and reasons - shown == set()
    states = re.findall(r'TargetState::\w+: return "([^"]+)"', tree.text("dp/abi/types.h"))
    assert set(states) == {row[0].strip("`") for row in rows()["States and reasons"]}
