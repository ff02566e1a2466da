"""Lets generated requests meet things that exist.

Ids that are drawn at random find nothing, and then only refusals are tried. So most requests get the id of a thing that
is there, where their path or body has a place for one; the others keep what was drawn. What is deleted is made again.
"""

import json
import os
import random
import urllib.error
import urllib.request

import schemathesis

BASE = os.environ["CALOTYPE_URL"]
TOKEN = os.environ["CALOTYPE_TOKEN"]
PROJECT = os.environ["CALOTYPE_PROJECT"]
USER = os.environ["CALOTYPE_USER"]
# Where identity or keys are another service's, these are what there is.
OTHER_PROJECTS = os.environ["CALOTYPE_OTHER_PROJECTS"].split()
OTHER_USERS = os.environ["CALOTYPE_OTHER_USERS"].split()
KEYS = os.environ["CALOTYPE_KEYS"].split()
# Whether a key that is made at the server is one to seal images under.
MAKES_KEYS = os.environ["CALOTYPE_MAKES_KEYS"] == "yes"
# A bucket that can be read and written, and an object in it.
BUCKET = os.environ["CALOTYPE_BUCKET"]
OBJECT = os.environ["CALOTYPE_OBJECT"]
# Where each answer's operation and status go.
ANSWERS = os.environ["CALOTYPE_ANSWERS"]
# Of ten requests, so many get what is there.
SHARE = 7
# And so many a body that is taken, where there is one.
GOOD = 2

DRAW = random.Random(int(os.environ["CALOTYPE_SEED"]))
ASKED = 0


def ask(method, path, body=None, content=None):
    """What the server answers to a request of ours, and the token that it may give."""
    data = content if content is not None else json.dumps(body).encode() if body is not None else None
    kind = "application/octet-stream" if content is not None else "application/json"
    headers = {"X-Auth-Token": TOKEN, "Accept": "application/json", "Content-Type": kind}
    request = urllib.request.Request(BASE + path, data, headers, method=method)
    try:
        with urllib.request.urlopen(request) as answer:
            text = answer.read()
            return json.loads(text) if text else None
    except urllib.error.HTTPError as refused:
        refused.read()
        return None


def name(kind):
    global ASKED
    ASKED += 1
    return f"{kind}-{ASKED}"


def new_queued_image():
    body = {"name": name("image"), "disk_format": "raw", "container_format": "bare"}
    return ask("POST", "/v2/images", body)["id"]


def new_active_image():
    image = new_queued_image()
    ask("PUT", f"/v2/images/{image}/file", content=b"bytes of an image")
    return image


def new_image():
    return new_active_image() if DRAW.random() < 0.7 else new_queued_image()


def new_job():
    image = new_image()
    accepted = ask("POST", f"/v1/cloudimages/{image}/copy", {"name": "replica"})
    return accepted["job_id"] if accepted else "0" * 32


def new_user():
    user = {"name": name("user"), "domain_id": "default", "password": "a phrase to log in by"}
    made = ask("POST", "/identity/v3/users", {"user": user})
    return made["user"]["id"] if made else DRAW.choice(OTHER_USERS)


def new_project():
    project = {"name": name("project"), "domain_id": "default"}
    made = ask("POST", "/identity/v3/projects", {"project": project})
    return made["project"]["id"] if made else DRAW.choice(OTHER_PROJECTS)


def new_role():
    made = ask("POST", "/identity/v3/roles", {"role": {"name": name("role")}})
    return made["role"]["id"] if made else None


def new_enterprise_project():
    return ask("POST", "/admin/v1/enterprise-projects", {"name": name("group")})["id"]


def new_key():
    made = MAKES_KEYS and ask("POST", f"/kms/v1.0/{PROJECT}/kms/create-key", {"key_alias": name("key")})
    return made["key_info"]["key_id"] if made else DRAW.choice(KEYS)


def new_access_key(user):
    made = ask("POST", f"/identity/v3/users/{user}/credentials/OS-EC2", {"tenant_id": PROJECT})
    return made["credential"]["access"] if made else "none"


MAKERS = {
    "image_id": new_image,
    "job_id": new_job,
    "user_id": new_user,
    "role_id": new_role,
    "key_id": new_key,
    "enterprise_project": new_enterprise_project,
}
MADE = {}


def thing(kind):
    """One that was made before, or a new one now and then."""
    made = MADE.setdefault(kind, [])
    if len(made) < 3 or (DRAW.random() < 0.1 and len(made) < 40):
        new = MAKERS[kind]()
        if new is None:
            return DRAW.choice(made) if made else None
        made.append(new)
        return new
    return DRAW.choice(made)


def forget(kind, one):
    if one in MADE.get(kind, []):
        MADE[kind].remove(one)


def good_bodies():
    """Bodies that are taken, for the operations that hardly any drawn one gets through."""
    image, key = thing("image_id"), thing("key_id")
    tag = {"key": name("tag"), "value": "v"}
    member = {"images": [image], "projects": [new_project()]}
    cloud, native = "/v1/cloudimages", "/v2/images/{image_id}"
    disk = {"name": name("imported"), "image_url": OBJECT, "min_disk": 1, "cmk_id": key}
    system = {"name": name("imported"), "image_url": OBJECT, "min_disk": 1, "os_version": "Debian GNU/Linux 9.3.0 64bit"}
    export = {"bucket_url": f"{BUCKET}:{name('exported')}", "file_format": "qcow2"}
    elsewhere = {"region": "elsewhere", "project_name": "project", "agency_name": "agency"}
    keys = "/kms/v1.0/{project_id}/kms"
    return {
        ("POST", f"{cloud}/{{image_id}}/copy"): {"name": "replica", "cmk_id": key},
        ("POST", "/v2.1/cloudimages/{image_id}/copy"): {"name": "replica"},
        ("POST", f"{cloud}/{{image_id}}/cross_region_copy"): {"name": "replica", **elsewhere},
        ("POST", "/v2/cloudimages/action"): disk,
        ("POST", "/v2.1/cloudimages/action"): disk,
        ("POST", f"{cloud}/action"): disk,
        ("POST", f"{cloud}/dataimages/action"): disk,
        ("POST", "/v2.1/cloudimages/dataimages/action"): disk,
        ("POST", "/v2/cloudimages/quickimport/action"): system,
        ("POST", "/v2.1/cloudimages/quickimport/action"): system,
        ("POST", f"{cloud}/wholeimages/action"): {"name": "whole", "instance_id": "server"},
        ("PUT", f"{cloud}/{{image_id}}/upload"): {"image_url": OBJECT},
        ("POST", f"{cloud}/{{image_id}}/file"): export,
        ("POST", "/v2.1/cloudimages/{image_id}/file"): export,
        ("POST", f"{cloud}/members"): member,
        ("DELETE", f"{cloud}/members"): member,
        ("PUT", f"{cloud}/members"): {"images": [image], "project_id": PROJECT, "status": "rejected"},
        ("PUT", f"{cloud}/tags"): {"image_id": image, "tag": "a=b"},
        ("PATCH", "/v2/cloudimages/{image_id}"): [{"op": "add", "path": "/min_ram", "value": 64}],
        ("POST", "/v2/{project_id}/images/resource_instances/action"): {"action": "filter"},
        ("POST", "/v2/{project_id}/images/{image_id}/tags/action"): {"action": "create", "tags": [tag]},
        ("POST", "/v2/{project_id}/images/{image_id}/tags"): {"tag": tag},
        ("PATCH", native): [{"op": "add", "path": "/colour", "value": "red"}],
        ("POST", f"{native}/members"): {"member": new_project()},
        ("POST", f"{keys}/create-grant"): {
            "key_id": key,
            "grantee_principal": USER,
            "operations": ["describe-key", "decrypt-datakey"],
        },
        ("POST", f"{keys}/schedule-key-deletion"): {"key_id": key, "pending_days": "7"},
        ("POST", f"{keys}/encrypt-data"): {"key_id": key, "plain_text": "words"},
        ("POST", f"{keys}/create-datakey"): {"key_id": key, "datakey_length": "512"},
        ("POST", f"{keys}/update-key-alias"): {"key_id": key, "key_alias": name("alias")},
        ("POST", f"{keys}/{{key_id}}/tags"): {"tag": tag},
        ("POST", f"{keys}/{{key_id}}/tags/action"): {"action": "create", "tags": [tag]},
        ("POST", f"{keys}/resource_instances/action"): {"action": "filter"},
        ("POST", "/identity/v3.0/OS-CREDENTIAL/securitytokens"): {
            "auth": {"identity": {"methods": ["token"], "token": {"duration_seconds": 900}}}
        },
    }


# The operations on images in one state alone, beside which a good body is not enough.
IMAGES_OF = {
    ("PUT", "/v1/cloudimages/{image_id}/upload"): new_queued_image,
    ("POST", "/v1/cloudimages/{image_id}/copy"): new_active_image,
    ("POST", "/v2.1/cloudimages/{image_id}/copy"): new_active_image,
    ("POST", "/v1/cloudimages/{image_id}/file"): new_active_image,
    ("POST", "/v2.1/cloudimages/{image_id}/file"): new_active_image,
}


def value_of(case, parameter):
    path = case.path
    if parameter == "project_id":
        # A project of ours is needed: no request must take it, or its rights, away.
        administers = path.startswith("/identity") or path.startswith("/admin")
        return new_project() if administers else PROJECT
    if parameter == "id" and "enterprise-projects" in path:
        return thing("enterprise_project")
    if parameter == "domain_id":
        return "default"
    if parameter in MAKERS:
        one = thing(parameter)
        if case.method.upper() == "DELETE" and path.endswith("{" + parameter + "}"):
            forget(parameter, one)
        return one
    return None


def spare_ourselves(case, parameters):
    """Ids are also taken from answers: whoever runs the tests must be there at their end, with its rights."""
    if case.method.upper() == "GET" or not case.path.startswith(("/identity", "/admin")):
        return
    if parameters.get("user_id") == USER:
        parameters["user_id"] = thing("user_id")
    if parameters.get("project_id") == PROJECT:
        parameters["project_id"] = new_project()


@schemathesis.hook
def before_call(context, case, kwargs):
    """Puts what is there in the place of what was drawn."""
    parameters = case.path_parameters or {}
    spare_ourselves(case, parameters)
    if DRAW.randrange(10) < SHARE:
        for parameter in list(parameters):
            value = value_of(case, parameter)
            if value is not None:
                parameters[parameter] = value
        user = parameters.get("user_id")
        if "access" in parameters and user:
            parameters["access"] = new_access_key(user)
    operation = (case.method.upper(), case.path)
    good = DRAW.randrange(10) < GOOD and good_bodies().get(operation)
    if good:
        case.body = good
        if operation in IMAGES_OF:
            parameters["image_id"] = IMAGES_OF[operation]()
    body = case.body
    if isinstance(body, dict) and DRAW.randrange(10) < SHARE:
        if isinstance(body.get("key_id"), str):
            body["key_id"] = thing("key_id") or body["key_id"]
        if isinstance(body.get("image_id"), str):
            body["image_id"] = thing("image_id")
        if isinstance(body.get("images"), list):
            body["images"] = [thing("image_id")]
        # What is asked of these first, so that the other fields are looked at.
        if isinstance(body.get("image_url"), str):
            body |= {"name": name("imported"), "image_url": OBJECT}
        # The only one that there is.
        if isinstance(body.get("store"), str):
            body["store"] = "main"
        if isinstance(body.get("bucket_url"), str):
            body["bucket_url"] = f"{BUCKET}:{name('exported')}"
    headers = case.headers
    # One that came before with another body would be all that the answer is about.
    if headers is not None and "Idempotency-Key" in headers and DRAW.randrange(10) < SHARE:
        headers["Idempotency-Key"] = name("request")
    # The server would wait for the bytes that these promise.
    for header in ("Content-Length", "Transfer-Encoding"):
        if headers is not None and header in headers:
            del headers[header]


@schemathesis.hook
def after_call(context, case, response):
    """Notes what became of it."""
    with open(ANSWERS, "a", encoding="utf-8") as answers:
        answers.write(f"{case.method.upper()} {case.path} {response.status_code}{code_of(response)}\n")


def code_of(response):
    """A refusal's code, behind a space."""
    try:
        return " " + response.json()["error"]["code"]
    except (ValueError, KeyError, TypeError):
        return ""


def as_json(media_type):
    @schemathesis.serializer(media_type)
    def serialize(context, value):
        return {"data": json.dumps(value)}

    return serialize


as_json("application/openstack-images-v2.1-json-patch")
as_json("application/openstack-images-v2.0-json-patch")
