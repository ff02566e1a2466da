"""huaweicloudsdkims: the calls that the other scripts leave; and then each call that the SDK has was made."""

import os
import time

import openstack
from huaweicloudsdkcore.auth.credentials import BasicCredentials
from huaweicloudsdkcore.exceptions.exceptions import ClientRequestException
from huaweicloudsdkims import v2

import huawei_calls

URL = os.environ["CALOTYPE_URL"]
PROJECT = os.environ["CALOTYPE_PROJECT"]
BUCKET = os.environ["CALOTYPE_BUCKET"]
CONTENT = b"w" * 3_000_000
UNKNOWN = "11111111-2222-4333-8444-555555555555"

with open(os.path.join(BUCKET, "disk.raw"), "wb") as file:
    file.write(CONTENT)


def client(access, secret, project, security_token=None):
    credentials = BasicCredentials(access, secret, project)
    if security_token is not None:
        credentials = credentials.with_security_token(security_token)
    return v2.ImsClient.new_builder().with_credentials(credentials).with_endpoint(URL).build()


ims = client(os.environ["CALOTYPE_ACCESS_KEY"], os.environ["CALOTYPE_SECRET_KEY"], PROJECT)


def ended(answer, job_type):
    for _ in range(1500):
        job = ims.show_job(v2.ShowJobRequest(job_id=answer.job_id))
        if job.status in ("SUCCESS", "FAIL"):
            break
        time.sleep(0.02)
    assert (job.status, job.job_type) == ("SUCCESS", job_type), job
    return job.entities.image_id


def image(of):
    [found] = ims.list_images(v2.ListImagesRequest(id=of)).images
    assert (found.status, found.image_size) == ("active", str(len(CONTENT))), found
    return found


def refused(call, request, *wanted):
    try:
        call(request)
    except ClientRequestException as error:
        assert (error.status_code, error.error_code) == wanted, error
    else:
        raise AssertionError(f"it was not refused with {wanted}")


body = v2.CreateDataImageRequestBody(name="source", image_url="images:disk.raw", min_disk=40)
SOURCE = ended(ims.create_data_image(v2.CreateDataImageRequest(body=body)), "imsImportDataImageJob")


def show_version():
    [version] = ims.show_version(v2.ShowVersionRequest(version="v2.0")).versions
    assert (version.id, version.status) == ("v2.0", "SUPPORTED"), version
    assert version.links[0].href.startswith(URL), version


def glance_list_image_schemas():
    schema = ims.glance_list_image_schemas(v2.GlanceListImageSchemasRequest())
    assert schema.name == "images" and "images" in schema.properties, schema
    assert {link.rel for link in schema.links} == {"first", "next", "describedby"}, schema


def glance_show_image_member_schemas():
    schema = ims.glance_show_image_member_schemas(v2.GlanceShowImageMemberSchemasRequest())
    assert schema.name == "member" and "member_id" in schema.properties, schema


def glance_list_image_member_schemas():
    schema = ims.glance_list_image_member_schemas(v2.GlanceListImageMemberSchemasRequest())
    assert schema.name == "members" and "members" in schema.properties, schema


def post(cloud, path, auth):
    identity = cloud.auth["auth_url"].removesuffix("/v3")
    answer = cloud.session.post(identity + path, json={"auth": auth}, authenticated=False)
    assert answer.status_code == 201, answer
    return answer


def recipient():
    """A signer in a project of its own, with a temporary key; Keystone has only lasting ones."""
    admin = openstack.connect(cloud="calotype-admin")
    project = admin.identity.create_project(name=f"rest-{PROJECT}", domain_id="default")
    user = admin.identity.create_user(name=f"rest-{PROJECT}", domain_id="default", password="a long password")
    role = admin.identity.find_role("member", ignore_missing=False)
    admin.identity.assign_project_role_to_user(project, user, role)
    password = {"user": {"id": user.id, "password": "a long password"}}
    auth = {"identity": {"methods": ["password"], "password": password}, "scope": {"project": {"id": project.id}}}
    if not admin.auth["auth_url"].startswith(URL):
        path = f"{admin.auth['auth_url']}/users/{user.id}/credentials/OS-EC2"
        key = admin.session.post(path, json={"tenant_id": project.id}).json()["credential"]
        return project.id, client(key["access"], key["secret"], project.id)
    token = post(admin, "/v3/auth/tokens", auth).headers["X-Subject-Token"]
    auth = {"identity": {"methods": ["token"], "token": {"id": token, "duration_seconds": 900}}}
    key = post(admin, "/v3.0/OS-CREDENTIAL/securitytokens", auth).json()["credential"]
    return project.id, client(key["access"], key["secret"], project.id, key["securitytoken"])


def glance_update_image_member():
    member, other = recipient()
    patch = [v2.GlanceUpdateImageRequestBody(op="replace", path="/visibility", value="shared")]
    ims.glance_update_image(v2.GlanceUpdateImageRequest(image_id=SOURCE, body=patch))
    body = v2.GlanceAddImageMemberRequestBody(member=member)
    ims.glance_add_image_member(v2.GlanceAddImageMemberRequest(image_id=SOURCE, body=body))
    for status in ("accepted", "rejected"):
        body = v2.GlanceUpdateImageMemberRequestBody(status=status)
        request = v2.GlanceUpdateImageMemberRequest(image_id=SOURCE, member_id=member, body=body)
        assert other.glance_update_image_member(request).status == status
        for each in (ims, other):
            shown = each.glance_show_image_member(v2.GlanceShowImageMemberRequest(image_id=SOURCE, member_id=member))
            assert (shown.status, shown.image_id, shown.member_id) == (status, SOURCE, member), shown


def copy_image_in_region_in_safe_mode():
    body = v2.CopyImageInRegionRequestBody(name="safe", description="by the SDK")
    request = v2.CopyImageInRegionInSafeModeRequest(image_id=SOURCE, body=body)
    made = image(ended(ims.copy_image_in_region_in_safe_mode(request), "imsCopyImageInRegionJob"))
    assert (made.name, made.description) == ("safe", "by the SDK"), made


def create_image_in_safe_mode():
    body = v2.CreateImageRequestBody(
        name="system", image_url="images:disk.raw", min_disk=40, os_version="CentOS 7.2 64bit")
    request = v2.CreateImageInSafeModeRequest(body=body)
    made = image(ended(ims.create_image_in_safe_mode(request), "imsImportImageJob"))
    assert (made.name, made.platform, made.min_disk) == ("system", "CentOS", 40), made


def create_data_image_in_safe_mode():
    body = v2.CreateDataImageRequestBody(name="data", image_url="images:disk.raw", min_disk=100, os_type="Windows")
    request = v2.CreateDataImageInSafeModeRequest(body=body)
    made = image(ended(ims.create_data_image_in_safe_mode(request), "imsImportDataImageJob"))
    assert (made.virtual_env_type, made.os_type) == ("DataImage", "Windows"), made


def import_image_quick_in_safe_mode():
    body = v2.QuickImportImageByFileRequestBody(
        name="quick", image_url="images:disk.raw", min_disk=40, os_version="CentOS 7.2 64bit")
    request = v2.ImportImageQuickInSafeModeRequest(body=body)
    made = image(ended(ims.import_image_quick_in_safe_mode(request), "imsImportImageJob"))
    assert (made.name, made.os_version) == ("quick", "CentOS 7.2 64bit"), made


def exported(call, request, file_format, magic):
    def to(url, file_format):
        body = v2.ExportImageRequestBody(bucket_url=url, file_format=file_format)
        return request(image_id=SOURCE, body=body)

    name = f"{file_format}.exported"
    assert ended(call(to(f"images:{name}", file_format)), "imsNativeExportImageJob") == SOURCE
    with open(os.path.join(BUCKET, name), "rb") as file:
        assert file.read(len(magic)) == magic, file_format
    refused(call, to(f"images:{name}", file_format), 400, "IMG.0070")
    refused(call, to("images:", file_format), 400, "IMG.0073")
    refused(call, to("images:other", "zvhd"), 400, "IMG.0072")


def export_image():
    exported(ims.export_image, v2.ExportImageRequest, "qcow2", b"QFI\xfb")


def export_image_in_safe_mode():
    exported(ims.export_image_in_safe_mode, v2.ExportImageInSafeModeRequest, "vmdk", b"KDMV")


def create_whole_image():
    body = v2.CreateWholeImageRequestBody(name="whole", instance_id=UNKNOWN, vault_id=UNKNOWN)
    refused(ims.create_whole_image, v2.CreateWholeImageRequest(body=body), 400, "IMG.0005")
    body = v2.CreateWholeImageRequestBody(name="whole", backup_id=UNKNOWN, whole_image_type="CBR")
    refused(ims.create_whole_image, v2.CreateWholeImageRequest(body=body), 400, "IMG.0020")


def copy_image_cross_region():
    body = v2.CopyImageCrossRegionRequestBody(
        name="far", region="elsewhere", project_name="elsewhere_project", agency_name="agency")
    call = ims.copy_image_cross_region
    refused(call, v2.CopyImageCrossRegionRequest(image_id=SOURCE, body=body), 400, "IMG.0105")
    refused(call, v2.CopyImageCrossRegionRequest(image_id=UNKNOWN, body=body), 404, "IMG.0027")


for step in (
    show_version, glance_list_image_schemas, glance_show_image_member_schemas, glance_list_image_member_schemas,
    glance_update_image_member, copy_image_in_region_in_safe_mode, create_image_in_safe_mode,
    create_data_image_in_safe_mode, import_image_quick_in_safe_mode, export_image, export_image_in_safe_mode,
    create_whole_image, copy_image_cross_region,
):
    step()

left = huawei_calls.ALL - huawei_calls.made()
assert not left, left
