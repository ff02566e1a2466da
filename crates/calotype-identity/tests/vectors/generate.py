"""Writes signatures.json: requests as they stand on the wire, signed.

Scheme A is signed by the real huaweicloudsdkcore (pip install huaweicloudsdkcore). Scheme B is written anew below,
from the description of what the Go clients sign. The keys are fake.

    python3 generate.py > signatures.json
"""

import hashlib
import hmac
import json
import re
from urllib.parse import quote, quote_plus, unquote

from huaweicloudsdkcore.auth.credentials import BasicCredentials
from huaweicloudsdkcore.sdk_request import SdkRequest
from huaweicloudsdkcore.signer.signer import Signer

ACCESS, SECRET = "AKTEST", "sk-test-not-a-secret"
DATE = "20261123T201500Z"
HOST = "127.0.0.1:9292"
PROJECT = "0123456789abcdef0123456789abcdef"
IMAGE = "/v2/images/11111111-2222-3333-4444-555555555555"


def scheme_a(name, method, path, query=(), headers=None, body=b""):
    all_headers = {"X-Sdk-Date": DATE, "User-Agent": "huaweicloud-usdk-python/3.0"}
    all_headers.update(headers or {})
    request = SdkRequest(
        method=method, schema="http", host=HOST, resource_path=path,
        query_params=list(query), header_params=all_headers, body=body,
    )
    signed = Signer(BasicCredentials(ACCESS, SECRET, PROJECT)).sign(request)
    # The HTTP library below the SDK encodes what may not stand in a request line.
    target = quote(signed.uri, safe="/?&=%~-._+,:;@!$'()*")
    wire = {key: value.encode("iso-8859-1").decode("utf-8") for key, value in signed.header_params.items()}
    return vector(name, method, target, wire, body)


def scheme_b(name, method, target, headers=None, body=b"", late=None, region="", service=""):
    all_headers = {"Host": HOST, "User-Agent": "golangsdk/2.0.0", "X-Sdk-Date": DATE}
    all_headers.update(headers or {})
    path, _, raw_query = target.partition("?")
    pairs = []
    for piece in filter(None, raw_query.split("&")):
        key, _, value = piece.partition("=")
        pairs.append((unquote(key.replace("+", " ")), unquote(value.replace("+", " "))))
    payload, query = body or b"", ""
    if method == "POST" and body is None:
        grouped = sorted(pairs, key=lambda pair: pair[0].encode())
        payload = "&".join(f"{quote_plus(k)}={quote_plus(v)}" for k, v in grouped).encode()
    else:
        first = {}
        for key, value in pairs:
            first.setdefault(key, value)
        encoded = [(quote(k, safe="~"), quote(v, safe="~")) for k, v in first.items()]
        query = "&".join(f"{k}={v}" for k, v in sorted(encoded, key=lambda pair: pair[0].lower()))
    canonical_path = quote(unquote(path), safe="/~")
    canonical_path += "" if canonical_path.endswith("/") else "/"
    names = sorted(all_headers, key=str.lower)
    lines = "".join(f"{n.lower()}:{re.sub(chr(92) + 's+', ' ', all_headers[n])}\n" for n in names)
    signed_names = ";".join(n.lower() for n in names)
    content = next((v for k, v in all_headers.items() if k.lower() == "x-sdk-content-sha256"), None)
    content = content or hashlib.sha256(payload).hexdigest()
    canonical = "\n".join([method, canonical_path, query, lines, signed_names, content])
    scope = f"{DATE[:8]}/{region}/{service}/sdk_request"
    text = "\n".join(["SDK-HMAC-SHA256", DATE, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = b"SDK" + SECRET.encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    all_headers["Authorization"] = (
        f"SDK-HMAC-SHA256 Credential={ACCESS}/{scope}, SignedHeaders={signed_names}, Signature={signature}"
    )
    all_headers.update(late or {})
    return vector(name, method, target, all_headers, body or b"")


def vector(name, method, target, headers, body):
    text = body.decode() if isinstance(body, bytes) else body
    return {"name": name, "method": method, "target": target, "headers": headers, "body": text}


JSON = {"Content-Type": "application/json"}
JSON_PATCH = {"Content-Type": "application/openstack-images-v2.1-json-patch"}
AS_PROJECT = {"X-Project-Id": PROJECT}

vectors = [
    scheme_a("A: GET without query", "GET", "/v2/cloudimages"),
    scheme_a("A: GET with query", "GET", "/v2/cloudimages", [("limit", 5), ("__imagetype", "gold"), ("protected", True)]),
    scheme_a("A: GET with repeated key", "GET", "/v2/cloudimages", [("tag", ["b", "a", "c"]), ("limit", 1)]),
    scheme_a("A: GET with repeated numbers", "GET", "/v2/cloudimages", [("size", [10, 2])]),
    scheme_a("A: GET with unicode and spaces", "GET", "/v2/cloudimages", [("name", "Bildträger 1+1=2 ~x*"), ("empty", "")]),
    scheme_a("A: GET with upper and lower case keys", "GET", "/v2/cloudimages", [("b", "1"), ("A", "2"), ("a", "3")]),
    scheme_a("A: GET by a path with encoded characters", "GET", "/v2/images/tags/two%20words%2Fslash~"),
    scheme_a("A: GET by a path with a final slash", "GET", "/v3/"),
    scheme_a("A: GET projects by name", "GET", "/identity/v3/projects", [("name", "eu-de_demo")]),
    scheme_a("A: POST json with project", "POST", "/v1/cloudimages/11111111-2222-3333-4444-555555555555/copy",
             headers={**JSON, **AS_PROJECT}, body=json.dumps({"name": "kopie-ä", "cmk_id": ""}).encode()),
    scheme_a("A: PATCH json-patch leaves the body out", "PATCH", IMAGE, headers=JSON_PATCH,
             body=b'[{"op":"replace","path":"/name","value":"x"}]'),
    scheme_a("A: DELETE of another media type without a body", "DELETE", IMAGE, headers=JSON_PATCH),
    scheme_a("A: header values with spaces around", "GET", "/v2/cloudimages", headers={"X-Note": "  two   words "}),
    scheme_a("A: header names with underscores are left out", "GET", "/v2/cloudimages", headers={"X_Note": "n"}),
    scheme_b("B: GET without query", "GET", "/v2/cloudimages", late=AS_PROJECT),
    scheme_b("B: GET with query", "GET", "/v2/cloudimages?limit=5&__imagetype=gold&Zone=1&a=2"),
    scheme_b("B: GET with repeated key", "GET", "/v2/cloudimages?tag=b&tag=a&limit=1"),
    scheme_b("B: GET with unicode and spaces", "GET", "/v2/cloudimages?name=Bildtr%C3%A4ger+1%2B1&empty="),
    scheme_b("B: GET by a path with encoded characters", "GET", "/v2/images/two%20words~/(x)"),
    scheme_b("B: GET projects by name", "GET", "/identity/v3/projects?name=eu-de_demo", headers={"Accept": "application/json"}),
    scheme_b("B: POST json with line end", "POST", "/v1/cloudimages/11111111-2222-3333-4444-555555555555/copy",
             headers=JSON, body=b'{"name":"kopie"}\n', late=AS_PROJECT),
    scheme_b("B: POST without body signs the query as one", "POST", "/v2/images/x/actions/reactivate?b=1+2&a=x&b=3", body=None),
    scheme_b("B: POST with neither body nor query", "POST", "/v2/images/x/actions/deactivate", body=None),
    scheme_b("B: PATCH json-patch signs the body", "PATCH", IMAGE, headers=JSON_PATCH, body=b'[{"op":"remove","path":"/x"}]'),
    scheme_b("B: header values with runs of spaces", "GET", "/v2/cloudimages", headers={"X-Note": "two   wor\tds", "X_Under": "u"}),
    scheme_b("B: a region and a service", "GET", "/v2/cloudimages", region="eu-de", service="ims"),
    scheme_b("B: a declared hash", "POST", "/v2/cloudimages/action", body=b"{}", headers={
        "X-Sdk-Content-Sha256": hashlib.sha256(b"{}").hexdigest()}),
]
print(json.dumps({"access": ACCESS, "secret": SECRET, "date": DATE, "vectors": vectors}, indent=1, ensure_ascii=False))
