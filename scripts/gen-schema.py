#!/usr/bin/env python3
"""Derives the schema table of the built-in kinds from the Go types of Kubernetes.

Run by hand when the version of the upstream types changes:

    for r in api apimachinery apiextensions-apiserver kube-aggregator metrics; do
        git clone --depth 1 --branch v0.33.4 https://github.com/kubernetes/$r k8s/$r
    done
    scripts/gen-schema.py k8s > minik8s-core/src/api/schema/builtin.txt

The Go struct tags and comment markers are the source the real server works from: JSON and protobuf names, pointers,
patch strategies, list types. The table's format is described in minik8s-core/src/api/schema/parse.rs.
"""

import re
import sys
from pathlib import Path

META = "io.k8s.apimachinery.pkg.apis.meta.v1"
GROUPS = {  # directory in k8s.io/api -> API group
    "admissionregistration/v1": "admissionregistration.k8s.io", "apps/v1": "apps",
    "authentication/v1": "authentication.k8s.io", "authorization/v1": "authorization.k8s.io",
    "autoscaling/v1": "autoscaling", "autoscaling/v2": "autoscaling", "batch/v1": "batch",
    "certificates/v1": "certificates.k8s.io", "coordination/v1": "coordination.k8s.io", "core/v1": "",
    "discovery/v1": "discovery.k8s.io", "events/v1": "events.k8s.io", "flowcontrol/v1": "flowcontrol.apiserver.k8s.io",
    "networking/v1": "networking.k8s.io", "node/v1": "node.k8s.io", "policy/v1": "policy",
    "rbac/v1": "rbac.authorization.k8s.io", "scheduling/v1": "scheduling.k8s.io", "storage/v1": "storage.k8s.io",
}
# (directory, OpenAPI package, API group)
PACKAGES = [(f"api/{d}", "io.k8s.api." + d.replace("/", "."), g) for d, g in GROUPS.items()] + [
    ("apimachinery/pkg/apis/meta/v1", META, "meta.k8s.io"),
    ("apiextensions-apiserver/pkg/apis/apiextensions/v1",
     "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1", "apiextensions.k8s.io"),
    ("kube-aggregator/pkg/apis/apiregistration/v1",
     "io.k8s.kube-aggregator.pkg.apis.apiregistration.v1", "apiregistration.k8s.io"),
    ("metrics/pkg/apis/metrics/v1beta1", "io.k8s.metrics.pkg.apis.metrics.v1beta1", "metrics.k8s.io"),
]
SCALARS = {"string": "s", "bool": "b", "int": "l", "int32": "i", "int64": "l", "float64": "d", "byte": "y"}
SPECIAL = {
    f"{META}.Time": "T", f"{META}.MicroTime": "U", f"{META}.Duration": "D", f"{META}.FieldsV1": "R",
    "types.UID": "s", "types.NodeName": "s", "types.NamespacedName": "R",
    "resource.Quantity": "Q", "intstr.IntOrString": "I", "runtime.RawExtension": "R", "runtime.Object": "R",
}
SKIPPED_FIELDS = {"TypeMeta"}
JSON_SCHEMA = {"JSON": "R", "JSONSchemaPropsOrArray": "R", "JSONSchemaPropsOrBool": "R",
               "JSONSchemaPropsOrStringArray": "R"}
# The types package of the root kinds that carry TypeMeta only for their own wire form, and that no server takes.
SKIPPED_TYPES = re.compile(r"(.*List|TypeMeta|Table.*|PartialObjectMetadata|InternalEvent|Timestamp|Verbs|ExtraValue|"
                           r"Time|MicroTime|Duration|FieldsV1|JSON|JSONSchemaPropsOr.*|WatchEvent|ProtoMicroTime|"
                           r"RawExtension|(Pod)?(List|Get|Create|Patch|Apply|Update|Table|Log|Attach|Exec|PortForward)Options|.*ProxyOptions|RootPaths|PodStatusResult|RangeAllocation|SerializedReference)$")
KEPT_TYPES = {"DeleteOptions"}


def parse(directory, package, group):
    """Structs and named types of one Go package: {name: (comment, fields | alias)}."""
    structs, aliases = {}, {}
    for path in sorted(directory.glob("*.go")):
        if path.name.endswith("_test.go") or "generated" in path.name or path.name == "doc.go":
            continue
        text = path.read_text()
        imports = dict(re.findall(r'^(?:import)?\s+(\w+)\s+"([^"]+)"$', text, re.M))
        comment, lines = [], iter(text.splitlines())
        for line in lines:
            if line.startswith("//"):
                comment.append(line[2:].strip())
            elif match := re.match(r"type (\w+) struct \{$", line):
                structs[match[1]] = (comment, struct_fields(lines), imports)
                comment = []
            elif match := re.match(r"type (\w+) struct ?\{\}$", line):
                structs[match[1]] = (comment, [], imports)
                comment = []
            elif match := re.match(r"type (\w+) (?:= )?(\S.*?)(?: //.*)?$", line):
                aliases[match[1]] = (match[2], imports)
                comment = []
            else:
                comment = [] if line.strip() else comment
    return {"package": package, "group": group, "structs": structs, "aliases": aliases}


def struct_fields(lines):
    """(comment lines, Go name or None, Go type, tags) of each field up to the closing brace."""
    out, comment, skipping = [], [], False
    for line in lines:
        line = line.strip()
        skipping = (skipping or line.startswith("/*")) and "*/" not in line
        if skipping or line.endswith("*/"):
            continue
        if line == "}":
            return out
        if line.startswith("//"):
            comment.append(line[2:].strip())
        elif match := re.match(r"(?:(\w+)\s+)?([\w.*\[\]]+)\s*(?:`(.*)`)?", line):
            tags = dict(re.findall(r'(\w+):"((?:[^"\\]|\\.)*)"', match[3] or ""))
            out.append((comment, match[1], match[2], tags))
            comment = []
        else:
            comment = [] if line else comment
    return out


class Generator:
    def __init__(self, root):
        self.packages = {p: parse(root / d, p, g) for d, p, g in PACKAGES}
        self.by_go_path = {"k8s.io/" + d: p for d, p, _ in PACKAGES}

    def qualify(self, name, package, imports):
        """The OpenAPI name of a Go type name seen in a package."""
        if "." not in name:
            return f"{package}.{name}"
        alias, name = name.split(".")
        target = self.by_go_path.get(imports.get(alias, ""))
        return f"{target}.{name}" if target else f"{alias}.{name}"

    def type_code(self, go, package, imports, within):
        if go.startswith("*"):
            return self.type_code(go[1:], package, imports, within)
        if go == "[]byte":
            return "x"
        if go.startswith("[]"):
            return "[]" + self.type_code(go[2:], package, imports, within)
        if match := re.match(r"map\[[\w.]+\](.+)", go):
            return "{}" + self.type_code(match[1], package, imports, within)
        if go in SCALARS:
            return SCALARS[go]
        full = self.qualify(go, package, imports)
        home, _, name = full.rpartition(".")
        if full in SPECIAL or name in JSON_SCHEMA:
            return SPECIAL.get(full) or JSON_SCHEMA[name]
        if name in ("ExtraValue", "Verbs"):
            return "w"
        if home in self.packages and name in self.packages[home]["aliases"]:
            alias, alias_imports = self.packages[home]["aliases"][name]
            return self.type_code(alias, home, alias_imports, within)
        if home not in self.packages:
            raise SystemExit(f"unknown type {go} ({full}) in {package}")
        return name if home == within else f"{self.short(home)}.{name}"

    @staticmethod
    def short(package):
        return "/".join(package.split(".")[-2:])

    def field(self, field, package, imports):
        comment, name, go, tags = field
        json = tags.get("json", "").split(",")
        proto = tags.get("protobuf", "").split(",")
        tag = proto[1] if len(proto) > 1 else "0"
        if go.lstrip("*").split(".")[-1] in SKIPPED_FIELDS or json[0] == "-":
            return None
        code = self.type_code(go, package, imports, package)
        if "inline" in json or (name is None and not json[0]):
            return f" + {tag} {code}"
        if not json[0]:
            return None
        markers = dict(re.match(r"\+([\w:-]*)=?(.*)", c).groups() for c in comment if c.startswith("+"))
        keys = [c.split("=", 1)[1] for c in comment if c.startswith("+listMapKey=")]
        optional = "omitempty" in json or "optional" in markers
        flags = "*" if go.startswith("*") else ""
        flags += "" if optional else "!"
        out = [json[0], tag, flags + code]
        if "patchStrategy" in tags:
            out.append("ps=" + tags["patchStrategy"])
        if "patchMergeKey" in tags:
            out.append("pk=" + tags["patchMergeKey"])
        if markers.get("listType") in ("map", "set", "atomic"):
            out.append("lt=" + markers["listType"])
        if keys:
            out.append("lk=" + ",".join(keys))
        if markers.get("mapType") == "atomic" or markers.get("structType") == "atomic":
            out.append("atomic")
        if "granular" in (markers.get("mapType"), markers.get("structType")):
            out.append("granular")
        if re.fullmatch(r"\"[^ ]+\"|\d+|true|false", markers.get("default", "")):
            out.append("df=" + markers["default"])
        return " " + " ".join(out)

    def run(self):
        print("# Schema table of the built-in kinds; made by scripts/gen-schema.py from the Go types of Kubernetes.")
        for package in self.packages.values():
            name = package["package"]
            print(f"% {self.short(name)} {name} {package['group'] or 'core'}")
            for struct, (comment, fields, imports) in sorted(package["structs"].items()):
                if SKIPPED_TYPES.fullmatch(struct) and struct not in KEPT_TYPES:
                    continue
                root = any(f[2].endswith("TypeMeta") and "inline" in f[3].get("json", "") for f in fields)
                marks = (" @" if root else "") + \
                    (" atomic" if any(c in ("+structType=atomic", "+mapType=atomic") for c in comment) else "")
                lines = [line for line in (self.field(f, name, imports) for f in fields) if line]
                print("\n".join([f"= {struct}{marks}"] + lines))


if __name__ == "__main__":
    Generator(Path(sys.argv[1])).run()
