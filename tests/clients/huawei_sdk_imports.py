"""huaweicloudsdkims: images from objects in buckets, by each of its calls for them, and an object from an image."""

import hashlib
import io
import os
import tarfile
import time

from huaweicloudsdkcore.auth.credentials import BasicCredentials
from huaweicloudsdkcore.exceptions.exceptions import ClientRequestException
from huaweicloudsdkims.v2 import (
    CopyImageCrossRegionRequest,
    CopyImageCrossRegionRequestBody,
    CreateDataImageInSafeModeRequest,
    CreateDataImageRequest,
    CreateDataImageRequestBody,
    CreateImageInSafeModeRequest,
    CreateImageRequest,
    CreateImageRequestBody,
    CreateWholeImageRequest,
    CreateWholeImageRequestBody,
    ExportImageRequest,
    ExportImageRequestBody,
    GlanceCreateImageMetadataRequest,
    GlanceCreateImageMetadataRequestBody,
    GlanceShowImageRequest,
    ImportImageQuickInSafeModeRequest,
    ImportImageQuickRequest,
    ImsClient,
    ListImagesRequest,
    QuickImportImageByFileRequestBody,
    RegisterImageRequest,
    RegisterImageRequestBody,
    ShowJobRequest,
    TagKeyValue,
)

import huawei_calls  # noqa: F401

PROJECT = os.environ["CALOTYPE_PROJECT"]
CONTENT = b"y" * 3_000_000

with open(os.path.join(os.environ["CALOTYPE_BUCKET"], "disk.raw"), "wb") as file:
    file.write(CONTENT)

credentials = BasicCredentials(os.environ["CALOTYPE_ACCESS_KEY"], os.environ["CALOTYPE_SECRET_KEY"], PROJECT)
ims = ImsClient.new_builder().with_credentials(credentials).with_endpoint(os.environ["CALOTYPE_URL"]).build()


def wait_for(answer):
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        job = ims.show_job(ShowJobRequest(job_id=answer.job_id))
        if job.status in ("SUCCESS", "FAIL"):
            return job
        time.sleep(0.02)
    raise AssertionError(job)


def done(answer, job_type):
    job = wait_for(answer)
    assert (job.status, job.job_type) == ("SUCCESS", job_type), job
    image = ims.list_images(ListImagesRequest(id=job.entities.image_id)).images[0]
    assert image.status == "active" and image.image_size == str(len(CONTENT)), image
    shown = ims.glance_show_image(GlanceShowImageRequest(image_id=image.id))
    assert shown.checksum == hashlib.md5(CONTENT).hexdigest(), shown
    return image


body = CreateImageRequestBody(
    name="system", description="by the SDK", image_url="images:disk.raw", min_disk=40, os_version="CentOS 7.2 64bit",
    is_config=False, type="ECS", min_ram=1024, max_ram=4096, image_tags=[TagKeyValue(key="env", value="dev")])
image = done(ims.create_image(CreateImageRequest(body=body)), "imsImportImageJob")
assert (image.name, image.description, image.min_disk) == ("system", "by the SDK", 40), image
assert (image.platform, image.os_type, image.os_bit) == ("CentOS", "Linux", "64"), image
assert (image.max_ram, image.tags, image.data_origin) == ("4096", ["env=dev"], "file,images:disk.raw"), image

body = QuickImportImageByFileRequestBody(
    name="quick", image_url="images:disk.raw", min_disk=40, os_version="CentOS 7.2 64bit", architecture="arm")
image = done(ims.import_image_quick(ImportImageQuickRequest(body=body)), "imsImportImageJob")
assert image.hw_firmware_type == "uefi", image

body = CreateDataImageRequestBody(name="data", image_url="images:disk.raw", min_disk=100, os_type="Windows")
image = done(ims.create_data_image(CreateDataImageRequest(body=body)), "imsImportDataImageJob")
assert (image.virtual_env_type, image.os_type) == ("DataImage", "Windows"), image

MEMBERS = [("server.ovf", b"""<Envelope xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1">
<References><File ovf:id="a" ovf:href="system.raw"/><File ovf:id="b" ovf:href="data.raw"/></References>
<DiskSection><Disk ovf:diskId="1" ovf:fileRef="a" ovf:capacity="3000000"/>
<Disk ovf:diskId="2" ovf:fileRef="b" ovf:capacity="1000000"/></DiskSection>
<VirtualSystem ovf:id="vm"/></Envelope>"""), ("system.raw", CONTENT), ("data.raw", b"z" * 1_000_000)]
with tarfile.open(os.path.join(os.environ["CALOTYPE_BUCKET"], "server.ova"), "w", format=tarfile.USTAR_FORMAT) as archive:
    for name, content in MEMBERS:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
body = CreateImageRequestBody(name="server", image_url="images:server.ova", min_disk=40)
ended = wait_for(ims.create_image(CreateImageRequest(body=body)))
assert (ended.status, ended.job_type) == ("SUCCESS", "imsImportOvaImageJob"), ended
parts = ended.entities.sub_jobs_result
assert [part.entities.image_name for part in parts] == ["server", "server-1"], parts
assert [part.job_id for part in parts] == ended.entities.sub_jobs_list, ended
sizes = [ims.list_images(ListImagesRequest(id=part.entities.image_id)).images[0].image_size for part in parts]
assert sizes == ["3000000", "1000000"], sizes

system = CreateImageRequestBody(name="safe", image_url="images:disk.raw", min_disk=40, os_version="CentOS 7.2 64bit")
done(ims.create_image_in_safe_mode(CreateImageInSafeModeRequest(body=system)), "imsImportImageJob")
body = QuickImportImageByFileRequestBody(name="safe", image_url="images:disk.raw", min_disk=40, os_version="CentOS 7.2 64bit")
done(ims.import_image_quick_in_safe_mode(ImportImageQuickInSafeModeRequest(body=body)), "imsImportImageJob")
body = CreateDataImageRequestBody(name="safe", image_url="images:disk.raw", min_disk=40)
image = done(ims.create_data_image_in_safe_mode(CreateDataImageInSafeModeRequest(body=body)), "imsImportDataImageJob")

elsewhere = CopyImageCrossRegionRequestBody(name="there", region="eu-nl", project_name="eu-nl", agency_name="images")
try:
    ims.copy_image_cross_region(CopyImageCrossRegionRequest(image_id=image.id, body=elsewhere))
except ClientRequestException as error:
    assert (error.status_code, error.error_code) == (400, "IMG.0105"), error
else:
    raise AssertionError("there is one region")

waiting = ims.glance_create_image_metadata(
    GlanceCreateImageMetadataRequest(body=GlanceCreateImageMetadataRequestBody(name="waiting", os_version="CentOS 7.2 64bit")))
body = RegisterImageRequestBody(image_url="images:disk.raw")
image = done(ims.register_image(RegisterImageRequest(image_id=waiting.id, body=body)), "imsNativeImportImageJob")
assert image.id == waiting.id and image.name == "waiting", image

body = ExportImageRequestBody(bucket_url="images:out/web.qcow2", file_format="qcow2")
done(ims.export_image(ExportImageRequest(image_id=image.id, body=body)), "imsNativeExportImageJob")
with open(os.path.join(os.environ["CALOTYPE_BUCKET"], "out", "web.qcow2"), "rb") as file:
    assert file.read(4) == b"QFI\xfb"
try:
    ims.export_image(ExportImageRequest(image_id=image.id, body=body))
except ClientRequestException as error:
    assert (error.status_code, error.error_code) == (400, "IMG.0070"), error
else:
    raise AssertionError("an object was exported twice")

for url, code in [("images:nothing", "IMG.0057"), ("elsewhere:disk.raw", "IMG.0069"), ("disk.raw", "IMG.0017")]:
    try:
        body = CreateDataImageRequestBody(name="no", image_url=url, min_disk=40)
        ims.create_data_image(CreateDataImageRequest(body=body))
    except ClientRequestException as error:
        assert (error.status_code, error.error_code) == (400, code), error
    else:
        raise AssertionError(f"{url} was not refused")

NOBODYS = "0f0e0d0c-1111-4222-8333-444444444444"
whole = CreateWholeImageRequestBody
for ask, code in [
    (lambda: ims.create_image(CreateImageRequest(body=CreateImageRequestBody(name="no", instance_id=NOBODYS))), "IMG.0005"),
    (lambda: ims.create_whole_image(CreateWholeImageRequest(body=whole(name="no", instance_id=NOBODYS))), "IMG.0005"),
    (lambda: ims.create_whole_image(CreateWholeImageRequest(
        body=whole(name="no", backup_id=NOBODYS, whole_image_type="CBR"))), "IMG.0020"),
]:
    try:
        ask()
    except ClientRequestException as error:
        assert (error.status_code, error.error_code) == (400, code), error
    else:
        raise AssertionError(f"{code} was not answered")
