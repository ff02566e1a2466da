"""The `openstack` command: image create, list, show, set, unset, save, delete, and the identity's commands."""

import importlib
import json
import os
import sys
import tempfile
from types import SimpleNamespace

import openstackclient.shell

# What the commands import when they run is there in the forks.
for module in (
    "openstack.connection",
    "openstackclient.identity.client",
    "openstackclient.identity.v3.project",
    "openstackclient.image.client",
    "openstackclient.image.v2.image",
):
    importlib.import_module(module)


def run(*arguments):
    """One command in a process of its own: a fork of this one, so that the modules are not imported again for each."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors, open(os.devnull) as nothing:
        child = os.fork()
        if child == 0:
            code = 70
            try:
                # A standard input that is no terminal would be taken for the image: every create names a file.
                for file, number in ((nothing, 0), (out, 1), (errors, 2)):
                    os.dup2(file.fileno(), number)
                code = openstackclient.shell.main(list(arguments))
            except SystemExit as exit:
                code = exit.code
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code if isinstance(code, int) else 1)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        texts = [(file.seek(0), file.read().decode())[1] for file in (out, errors)]
    return SimpleNamespace(returncode=code, stdout=texts[0], stderr=texts[1])


def openstack(*arguments, parse=True):
    if parse:
        arguments += ("-f", "json")
    done = run(*arguments)
    assert done.returncode == 0, f"{arguments}: {done.returncode}\n{done.stdout}{done.stderr}"
    return json.loads(done.stdout) if parse else done.stdout


content = os.urandom(1024 * 1024 + 5)
with open("disk.raw", "wb") as file:
    file.write(content)

made = openstack(
    "image", "create", "--file", "disk.raw", "--disk-format", "raw", "--container-format", "bare",
    "--property", "os_distro=debian", "--tag", "web", "command-image",
)
assert made["name"] == "command-image", made
listed = openstack("image", "list")
assert [(i["ID"], i["Status"]) for i in listed] == [(made["id"], "active")], listed
shown = openstack("image", "show", "command-image")
assert shown["id"] == made["id"] and shown["size"] == len(content), shown

openstack("image", "set", "--name", "renamed", "--min-disk", "3", "--property", "a=b", "--tag", "more", made["id"], parse=False)
shown = openstack("image", "show", made["id"])
assert (shown["name"], shown["min_disk"]) == ("renamed", 3), shown
assert sorted(shown["tags"]) == ["more", "web"], shown
assert shown["properties"]["a"] == "b", shown
openstack("image", "unset", "--property", "a", "--tag", "more", made["id"], parse=False)
shown = openstack("image", "show", made["id"])
assert "a" not in shown["properties"] and shown["tags"] == ["web"], shown

openstack("image", "save", "--file", "saved.raw", "renamed", parse=False)
with open("saved.raw", "rb") as file:
    assert file.read() == content

openstack("image", "set", "--protected", made["id"], parse=False)
refused = run("image", "delete", made["id"])
assert refused.returncode != 0, "a protected image is not deleted"
openstack("image", "set", "--unprotected", made["id"], parse=False)
openstack("image", "delete", made["id"], parse=False)
assert openstack("image", "list") == []

# Without --file the command sends its standard input, here nothing: the image is active and empty.
empty = openstack("image", "create", "--disk-format", "raw", "--container-format", "bare", "empty")
assert openstack("image", "show", empty["id"])["status"] in ("active", "queued")
assert openstack("token", "issue")["project_id"] == os.environ["CALOTYPE_PROJECT"]
assert {s["Type"] for s in openstack("catalog", "list")} >= {"image", "identity"}

# Sharing: the other project's user accepts, and reads the image.
ADMIN = ("--os-cloud", "calotype-admin")
shared = openstack("image", "create", "--file", "disk.raw", "--disk-format", "raw", "--shared", "shared-image")
assert (shared["visibility"], shared["min_disk"]) == ("shared", 0), shared
other = openstack(*ADMIN, "project", "create", "other-project")
member = openstack("image", "add", "project", shared["id"], other["id"])
assert (member["member_id"], member["status"]) == (other["id"], "pending"), member
members = openstack("image", "member", "list", shared["id"])
assert [(m["Member ID"], m["Status"]) for m in members] == [(other["id"], "pending")], members
got = openstack("image", "member", "get", shared["id"], other["id"])
assert got["status"] == "pending", got
openstack(*ADMIN, "user", "create", "--password", "a phrase of its own", "other-user")
openstack(*ADMIN, "role", "add", "--project", other["id"], "--user", "other-user", "member", parse=False)
OTHER = (
    "--os-cloud", "calotype", "--os-username", "other-user", "--os-password", "a phrase of its own",
    "--os-project-name", "other-project",
)
assert openstack(*OTHER, "image", "list", "--shared") == [], "not yet accepted"
openstack(*OTHER, "image", "set", "--accept", shared["id"], parse=False)
assert [i["ID"] for i in openstack(*OTHER, "image", "list")] == [shared["id"]]
openstack(*OTHER, "image", "save", "--file", "theirs.raw", shared["id"], parse=False)
with open("theirs.raw", "rb") as file:
    assert file.read() == content
openstack("image", "remove", "project", shared["id"], other["id"], parse=False)
assert openstack(*OTHER, "image", "list") == []

# Deactivated images give no bytes to their users.
openstack("image", "set", "--deactivate", shared["id"], parse=False)
assert openstack("image", "show", shared["id"])["status"] == "deactivated"
withheld = run("image", "save", "--file", "no.raw", shared["id"])
assert withheld.returncode != 0
openstack("image", "set", "--activate", shared["id"], parse=False)

# Every filter and order of the list that the command knows.
for number in range(3):
    openstack(
        "image", "create", "--file", "disk.raw", "--disk-format", "raw", "--tag", "row",
        "--property", f"row={number}", "--min-ram", str(number), "--private", f"row-{number}",
    )
assert len(openstack("image", "list", "--tag", "row", "--private", "--status", "active")) == 3
assert [i["Name"] for i in openstack("image", "list", "--property", "row=1")] == ["row-1"]
assert [i["Name"] for i in openstack("image", "list", "--name", "row-2")] == ["row-2"]
rows = openstack("image", "list", "--long", "--tag", "row", "--sort", "name:desc", "--limit", "2")
assert [i["Name"] for i in rows] == ["row-2", "row-1"], rows
assert rows[0]["Checksum"] == shared["checksum"], rows[0]
assert len(openstack("image", "list", "--tag", "row", "--marker", "row-2", "--sort", "name:desc")) == 2
openstack("image", "set", "--hidden", "row-0", parse=False)
assert len(openstack("image", "list", "--tag", "row")) == 2
assert [i["Name"] for i in openstack("image", "list", "--hidden")] == ["row-0"]
openstack("image", "delete", "row-1", "row-2", parse=False)
community = openstack("image", "set", "--community", shared["id"], parse=False)
assert openstack(*OTHER, "image", "show", shared["id"])["visibility"] == "community"
assert openstack(*OTHER, "image", "list") == [], "a community image is listed where it is asked for"
assert [i["ID"] for i in openstack(*OTHER, "image", "list", "--community")] == [shared["id"]]

# Bytes of another format than the declared one.
wrong = run("image", "create", "--file", "disk.raw", "--disk-format", "qcow2", "wrong")
assert wrong.returncode != 0, wrong.stdout

# What an administrator does with the identity.
assert {r["Name"] for r in openstack(*ADMIN, "role", "list")} >= {"admin", "member", "reader"}
made = openstack(*ADMIN, "role", "create", "auditor")
assert openstack(*ADMIN, "role", "show", "auditor")["id"] == made["id"]
openstack(*ADMIN, "role", "delete", "auditor", parse=False)
assert openstack(*ADMIN, "user", "show", "other-user")["name"] == "other-user"
assert "other-project" in {p["Name"] for p in openstack(*ADMIN, "project", "list")}
key = openstack(*ADMIN, "ec2", "credentials", "create", "--user", "other-user", "--project", "other-project")
keys = openstack(*ADMIN, "ec2", "credentials", "list", "--user", "other-user")
assert [k["Access"] for k in keys] == [key["access"]], keys
openstack(*ADMIN, "ec2", "credentials", "delete", "--user", "other-user", key["access"], parse=False)
openstack(*ADMIN, "user", "set", "--disable", "other-user", parse=False)
refused = run(*OTHER, "image", "list")
assert refused.returncode != 0, "a disabled user"
openstack(*ADMIN, "user", "delete", "other-user", parse=False)
openstack(*ADMIN, "project", "delete", "other-project", parse=False)
