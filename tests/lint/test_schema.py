"""The JSON Schema that lb-cp prints: it takes every example and refuses what load() refuses field by field."""

import json
import subprocess

import jsonschema
import pytest
import tree
import yaml

CONFIGS = [n for n in tree.files() if n.startswith("configs/") and n.endswith(".yaml") and not n.startswith("configs/dp")]


@pytest.fixture(scope="module")
def schema():
    done = subprocess.run([tree.BUILD / "bin/lb-cp", "--schema"], capture_output=True, text=True, timeout=60, check=True)
    found = json.loads(done.stdout)
    jsonschema.Draft202012Validator.check_schema(found)
    return found


@pytest.mark.parametrize("name", CONFIGS)
def test_examples_fit_the_schema(schema, name):
    jsonschema.validate(yaml.safe_load(tree.text(name)), schema)


@pytest.mark.parametrize("path,value", [
    (("versions",), 1), (("version",), 2), (("listeners", 0, "protocol"), "SCTP"), (("target_groups", 0, "targets", 0, "weight"), 65536),
    (("target_groups", 0, "attributes"), {"deregistration_delay.timeout_seconds": 3601}), (("vips", 0, "name"), "x" * 65)])
def test_what_is_wrong_does_not_fit(schema, path, value):
    config = yaml.safe_load(tree.text("configs/demo.yaml"))
    at = config
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(config, schema)
