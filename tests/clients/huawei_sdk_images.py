"""huaweicloudsdkims: signed requests (AK/SK) for the IMS calls, replication first of all."""

import hashlib
import os
import time

from huaweicloudsdkcore.auth.credentials import BasicCredentials
from huaweicloudsdkcore.exceptions.exceptions import ClientRequestException
from huaweicloudsdkims.v2 import (
    AddImageTagRequest,
    AddImageTagRequestBody,
    AddOrUpdateTagsRequestBody,
    BatchAddMembersRequest,
    BatchAddMembersRequestBody,
    BatchAddOrDeleteTagsRequest,
    BatchAddOrDeleteTagsRequestBody,
    BatchDeleteMembersRequest,
    BatchDeleteTagsRequest,
    BatchDeleteTagsRequestBody,
    BatchUpdateMembersRequest,
    BatchUpdateMembersRequestBody,
    CopyImageInRegionRequest,
    CopyImageInRegionRequestBody,
    CreateOrUpdateTagsRequest,
    DeleteImageTagRequest,
    GlanceAddImageMemberRequest,
    GlanceAddImageMemberRequestBody,
    GlanceCreateImageMetadataRequest,
    GlanceCreateImageMetadataRequestBody,
    GlanceCreateTagRequest,
    GlanceDeleteImageMemberRequest,
    GlanceDeleteImageRequest,
    GlanceDeleteTagRequest,
    GlanceListImageMembersRequest,
    GlanceListImagesRequest,
    GlanceShowImageRequest,
    GlanceShowImageSchemasRequest,
    GlanceUpdateImageRequest,
    GlanceUpdateImageRequestBody,
    ImsClient,
    ListImageByTagsRequest,
    ListImageByTagsRequestBody,
    ListImageMembersRequest,
    ListImagesRequest,
    ListImagesTagsRequest,
    ListImageTagsRequest,
    ListOsVersionsRequest,
    ListTagsRequest,
    ListVersionsRequest,
    ResourceTag,
    ShowImageMemberRequest,
    ShowImageQuotaRequest,
    ShowJobProgressRequest,
    ShowJobRequest,
    TagKeyValue,
    Tags,
    UpdateImageRequest,
    UpdateImageRequestBody,
)
import openstack

import huawei_calls  # noqa: F401

URL = os.environ["CALOTYPE_URL"]
PROJECT = os.environ["CALOTYPE_PROJECT"]
CONTENT = b"x" * 100_000


def client(access, secret, security_token=None):
    credentials = BasicCredentials(access, secret, PROJECT)
    if security_token is not None:
        credentials = credentials.with_security_token(security_token)
    return ImsClient.new_builder().with_credentials(credentials).with_endpoint(URL).build()


signed = client(os.environ["CALOTYPE_ACCESS_KEY"], os.environ["CALOTYPE_SECRET_KEY"])

# The bytes go up with a token: a signature covers the whole body, and is limited to 12 MB.
cloud = openstack.connect(cloud=os.environ["OS_CLOUD"])
source = cloud.image.create_image("source", disk_format="raw", container_format="bare", data=CONTENT, validate_checksum=False)

listed = signed.list_images(ListImagesRequest(id=source.id)).images
assert [i.id for i in listed] == [source.id] and listed[0].status == "active", listed
assert listed[0].min_disk == 0 or listed[0].min_disk is not None

body = CopyImageInRegionRequestBody(name="replica", description="by the SDK")
job = signed.copy_image_in_region(CopyImageInRegionRequest(image_id=source.id, body=body)).job_id


def ended(job):
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        document = signed.show_job(ShowJobRequest(job_id=job))
        if document.status in ("SUCCESS", "FAIL"):
            return document
        time.sleep(0.02)
    raise AssertionError(f"the job {job} goes on")


document = ended(job)
assert document.status == "SUCCESS", document
assert document.job_type == "imsCopyImageInRegionJob"
replica = document.entities.image_id
found = signed.list_images(ListImagesRequest(id=replica)).images[0]
assert found.name == "replica" and found.description == "by the SDK", found
assert found.owner == PROJECT



def update(image, *operations):
    body = [UpdateImageRequestBody(op=op, path=path, value=value) for op, path, value in operations]
    return signed.update_image(UpdateImageRequest(image_id=image, body=body))


changed = update(
    replica,
    ("replace", "/__description", "changed by the SDK"),
    ("add", "/hw_firmware_type", "uefi"),
    ("replace", "/min_ram", 1024),
    ("replace", "/max_ram", 4096),
)
assert (changed.description, changed.hw_firmware_type) == ("changed by the SDK", "uefi"), changed
assert (changed.min_ram, changed.max_ram, changed.name) == (1024, "4096", "replica"), changed
changed = update(replica, ("remove", "/hw_firmware_type", None))
assert changed.hw_firmware_type is None, changed



def tags_of(image):
    return {t.key: t.value for t in signed.list_image_tags(ListImageTagsRequest(image_id=image)).tags}


def find(**wanted):
    body = ListImageByTagsRequestBody(action="filter", limit="10", offset="0", **wanted)
    answer = signed.list_image_by_tags(ListImageByTagsRequest(body=body))
    assert answer.total_count == len(answer.resources), answer
    return sorted(r.resource_name for r in answer.resources)


body = AddOrUpdateTagsRequestBody(image_id=replica, tag="env.dev")
signed.create_or_update_tags(CreateOrUpdateTagsRequest(body=body))
body = AddOrUpdateTagsRequestBody(image_id=replica, image_tag=ResourceTag(key="team", value="blue"))
signed.create_or_update_tags(CreateOrUpdateTagsRequest(body=body))
body = AddImageTagRequestBody(tag=ResourceTag(key="env", value="prod"))
signed.add_image_tag(AddImageTagRequest(image_id=replica, body=body))
assert tags_of(replica) == {"env": "prod", "team": "blue"}, tags_of(replica)
several = [ResourceTag(key="web", value=""), ResourceTag(key="env", value="test")]
body = BatchAddOrDeleteTagsRequestBody(action="create", tags=several)
signed.batch_add_or_delete_tags(BatchAddOrDeleteTagsRequest(image_id=source.id, body=body))
assert tags_of(source.id) == {"env": "test", "web": ""}
assert signed.list_tags(ListTagsRequest()).tags == ["env=prod", "env=test", "team=blue", "web"]
assert signed.list_tags(ListTagsRequest(id=replica, limit=1, page=1)).tags == ["env=prod"]
project_tags = {t.key: t.values for t in signed.list_images_tags(ListImagesTagsRequest()).tags}
assert project_tags == {"env": ["prod", "test"], "team": ["blue"], "web": [""]}, project_tags
listed = signed.list_images(ListImagesRequest(tag="env=prod")).images
assert [(i.id, i.tags) for i in listed] == [(replica, ["env=prod", "team=blue"])], listed
assert find(tags=[Tags(key="env", values=[])]) == ["replica", "source"]
assert find(tags=[Tags(key="env", values=["prod"])], not_tags_any=[Tags(key="web", values=[])]) == ["replica"]
assert find(without_any_tag=True) == []
assert find(matches=[TagKeyValue(key="resource_id", value=source.id)]) == ["source"]
body = ListImageByTagsRequestBody(action="count", tags_any=[Tags(key="web", values=[""]), Tags(key="team", values=[])])
assert signed.list_image_by_tags(ListImageByTagsRequest(body=body)).total_count == 2
signed.delete_image_tag(DeleteImageTagRequest(image_id=replica, key="team"))
body = BatchDeleteTagsRequestBody(tags=[ResourceTag(key="env", value="prod")])
signed.batch_delete_tags(BatchDeleteTagsRequest(image_id=replica, body=body))
body = BatchAddOrDeleteTagsRequestBody(action="delete", tags=several)
signed.batch_add_or_delete_tags(BatchAddOrDeleteTagsRequest(image_id=source.id, body=body))
assert tags_of(replica) == tags_of(source.id) == {}

platforms = {p.platform: p.version_list for p in signed.list_os_versions(ListOsVersionsRequest()).body}
narrow = [v for versions in platforms.values() for v in versions if v.os_bit == 32]
assert "SUSE" in platforms and narrow, platforms
platforms = {p.platform: p.version_list for p in signed.list_os_versions(ListOsVersionsRequest(tag="uefi")).body}
assert all(v.os_bit == 64 and v.os_version_key == v.os_version for versions in platforms.values() for v in versions)

quotas = {q.type: (q.used, q.quota) for q in signed.show_image_quota(ShowImageQuotaRequest()).quotas.resources}
assert quotas == {"image": (2, 1000), "image_shared": (0, 1000), "image_member": (0, 256)}, quotas

made = signed.glance_create_image_metadata(
    GlanceCreateImageMetadataRequest(body=GlanceCreateImageMetadataRequestBody(name="metadata", disk_format="raw"))
)
assert made.status == "queued", made

shown = signed.glance_show_image(GlanceShowImageRequest(image_id=source.id))
assert (shown.id, shown.size, shown.checksum) == (source.id, len(CONTENT), hashlib.md5(CONTENT).hexdigest()), shown
patch = [GlanceUpdateImageRequestBody(op="replace", path="/name", value="renamed")]
changed = signed.glance_update_image(GlanceUpdateImageRequest(image_id=source.id, body=patch))
assert changed.name == "renamed", changed
page = signed.glance_list_images(GlanceListImagesRequest(limit=2, sort_key="name", sort_dir="asc"))
assert [i.name for i in page.images] == ["metadata", "renamed"] and page.next, page
for query in (
    {"imagetype": "private"}, {"status": "active"}, {"name": "replica"}, {"owner": PROJECT},
    {"visibility": "private", "sort_key": "created_at", "sort_dir": "desc"}, {"disk_format": "raw"},
    {"created_at": "gte:2020-01-01T00:00:00Z"}, {"protected": False}, {"min_disk": 0, "min_ram": 0},
):
    signed.list_images(ListImagesRequest(**query))
assert [i.id for i in signed.list_images(ListImagesRequest(name="replica")).images] == [replica]
progress = signed.show_job_progress(ShowJobProgressRequest(job_id=job))
assert (progress.status, progress.job_id) == ("SUCCESS", job), progress
assert signed.glance_show_image_schemas(GlanceShowImageSchemasRequest()).name == "image"
assert signed.list_versions(ListVersionsRequest()).versions
member = "0123456789abcdef0123456789abcdef"
added = signed.glance_add_image_member(
    GlanceAddImageMemberRequest(image_id=source.id, body=GlanceAddImageMemberRequestBody(member=member))
)
assert (added.member_id, added.status) == (member, "pending"), added
found = signed.glance_list_image_members(GlanceListImageMembersRequest(image_id=source.id)).members
assert [m.member_id for m in found] == [member], found
signed.glance_delete_image_member(GlanceDeleteImageMemberRequest(image_id=source.id, member_id=member))

admin = openstack.connect(cloud="calotype-admin")
other = admin.identity.create_project(name=f"recipient-{PROJECT}", domain_id="default").id
body = BatchAddMembersRequestBody(images=[source.id, replica], projects=[other])
document = ended(signed.batch_add_members(BatchAddMembersRequest(body=body)).job_id)
assert (document.status, document.job_type) == ("SUCCESS", "imsAddImageMembersJob"), document
rows = [(r.image_id, r.project_id, r.status) for r in document.entities.results]
assert rows == [(source.id, other, "success"), (replica, other, "success")], rows
shared = signed.list_images(ListImagesRequest(imagetype="shared")).images
assert {source.id, replica} <= {i.id for i in shared}, shared
listed = signed.list_image_members(ListImageMembersRequest(image_id=source.id, limit=1))
assert [m.member_id for m in listed.members] == [other] and listed.page_info.current_count == 1, listed
assert signed.show_image_member(ShowImageMemberRequest(image_id=source.id, member_id=other)).status == "pending"
body = BatchUpdateMembersRequestBody(images=[source.id], project_id=PROJECT, status="accepted")
document = ended(signed.batch_update_members(BatchUpdateMembersRequest(body=body)).job_id)
assert (document.status, document.error_code) == ("FAIL", "IMG.0114"), document
assert [r.status for r in document.entities.results] == ["fail"], document
body = BatchAddMembersRequestBody(images=[source.id, replica], projects=[other])
document = ended(signed.batch_delete_members(BatchDeleteMembersRequest(body=body)).job_id)
assert (document.status, document.job_type) == ("SUCCESS", "imsDelImageMembersJob"), document
private = signed.list_images(ListImagesRequest(imagetype="private")).images
assert {source.id, replica} <= {i.id for i in private}, private
signed.glance_create_tag(GlanceCreateTagRequest(image_id=source.id, tag="web"))
assert signed.glance_show_image(GlanceShowImageRequest(image_id=source.id)).tags == ["web"]
signed.glance_delete_tag(GlanceDeleteTagRequest(image_id=source.id, tag="web"))

for each in (source.id, replica, made.id):
    signed.glance_delete_image(GlanceDeleteImageRequest(image_id=each))
assert signed.list_images(ListImagesRequest()).images == []


def refused(call, status):
    try:
        call()
    except ClientRequestException as error:
        assert error.status_code == status, error
        return error
    raise AssertionError("it was not refused")


wrong = client(os.environ["CALOTYPE_ACCESS_KEY"], "0" * 40)
refused(lambda: wrong.list_images(ListImagesRequest()), 401)
unknown = client("UNKNOWNACCESSKEY0000", "0" * 40)
refused(lambda: unknown.list_images(ListImagesRequest()), 401)
body = CopyImageInRegionRequestBody(name="replica")
missing = CopyImageInRegionRequest(image_id="11111111-2222-4333-8444-555555555555", body=body)
error = refused(lambda: signed.copy_image_in_region(missing), 404)
assert error.error_code == "IMG.0027", error
kept = signed.glance_create_image_metadata(
    GlanceCreateImageMetadataRequest(body=GlanceCreateImageMetadataRequestBody(name="kept", disk_format="raw"))
).id
assert refused(lambda: update(kept, ("replace", "/name", "x")), 400).error_code == "IMG.0046"
signed.glance_delete_image(GlanceDeleteImageRequest(image_id=kept))

# A temporary key: got with a token, it signs with its security token, and with no other. Keystone has none.
if not cloud.auth["auth_url"].startswith(URL):
    raise SystemExit(0)
auth = {"identity": {"methods": ["token"], "token": {"id": cloud.auth_token, "duration_seconds": 900}}}
answer = cloud.session.post(
    URL + "/identity/v3.0/OS-CREDENTIAL/securitytokens", json={"auth": auth}, authenticated=False
)
assert answer.status_code == 201, answer
key = answer.json()["credential"]
temporary = client(key["access"], key["secret"], key["securitytoken"])
assert [i.name for i in temporary.list_images(ListImagesRequest()).images] == []
made = temporary.glance_create_image_metadata(
    GlanceCreateImageMetadataRequest(body=GlanceCreateImageMetadataRequestBody(name="temporary", disk_format="raw"))
)
assert temporary.glance_show_image(GlanceShowImageRequest(image_id=made.id)).owner == PROJECT
patch = [GlanceUpdateImageRequestBody(op="replace", path="/name", value="renamed")]
temporary.glance_update_image(GlanceUpdateImageRequest(image_id=made.id, body=patch))
assert [i.name for i in signed.list_images(ListImagesRequest()).images] == ["renamed"]
temporary.glance_delete_image(GlanceDeleteImageRequest(image_id=made.id))
for security_token in (None, "calosec_" + "0" * 64):
    other = client(key["access"], key["secret"], security_token)
    refused(lambda: other.list_images(ListImagesRequest()), 401)
permanent = client(os.environ["CALOTYPE_ACCESS_KEY"], os.environ["CALOTYPE_SECRET_KEY"], key["securitytoken"])
refused(lambda: permanent.list_images(ListImagesRequest()), 401)
