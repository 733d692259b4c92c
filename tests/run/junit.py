"""JUnit files: made, merged, counted."""

import xml.etree.ElementTree as ET


def counts(path):
    """(passed, failed, skipped) of a JUnit file."""
    passed = failed = skipped = 0
    for case in ET.parse(path).getroot().iter("testcase"):
        if case.find("failure") is not None or case.find("error") is not None:
            failed += 1
        elif case.find("skipped") is not None or case.get("status") == "notrun":
            skipped += 1
        else:
            passed += 1
    return passed, failed, skipped


def write(path, suite, cases):
    """cases: (name, seconds, None or text of the failure)."""
    root = ET.Element("testsuites")
    node = ET.SubElement(root, "testsuite", name=suite, tests=str(len(cases)),
                         failures=str(sum(1 for case in cases if case[2] is not None)))
    for name, seconds, failure in cases:
        case = ET.SubElement(node, "testcase", classname=suite, name=name, time=f"{seconds:.3f}")
        if failure is not None:
            ET.SubElement(case, "failure", message=failure.strip().splitlines()[-1][:200] if failure.strip() else name).text = failure
    ET.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)


def rename(path, new_name):
    tree = ET.parse(path)
    for case in tree.getroot().iter("testcase"):
        case.set("name", new_name(case.get("name")))
    tree.write(path, encoding="utf-8", xml_declaration=True)


def merge(path, parts):
    """Writes the suites of all parts that exist into one file."""
    root = ET.Element("testsuites")
    for part in parts:
        if part.exists():
            tree = ET.parse(part).getroot()
            root.extend(tree.findall("testsuite") if tree.tag == "testsuites" else [tree])
    ET.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)
