"""python-glanceclient: the library, with its check of every input against the server's schema."""

import io
import os

import openstack
from glanceclient import Client, exc

cloud = openstack.connect(cloud=os.environ["OS_CLOUD"])
glance = Client("2", session=cloud.session, region_name=cloud.config.region_name)

image = glance.images.create(name="glance-image", disk_format="qcow2", container_format="bare", tags=["web"])
assert image.status == "queued", image
assert [i.id for i in glance.images.list()] == [image.id]
try:
    glance.images.create(name="wrong", disk_format="nonsense", container_format="bare")
except (TypeError, ValueError):
    pass
else:
    raise AssertionError("the schema lists the formats")

raw = glance.images.create(name="raw", disk_format="raw", container_format="bare")
glance.images.upload(raw.id, io.BytesIO(b"content" * 1000))
assert glance.images.get(raw.id).status == "active"
assert b"".join(glance.images.data(raw.id)) == b"content" * 1000
updated = glance.images.update(raw.id, name="renamed", os_distro="debian", remove_props=None)
assert (updated.name, updated.os_distro) == ("renamed", "debian")
updated = glance.images.update(raw.id, remove_props=["os_distro"])
assert "os_distro" not in updated

glance.image_tags.update(raw.id, "fresh")
assert glance.images.get(raw.id).tags == ["fresh"]
glance.image_tags.delete(raw.id, "fresh")

usage = glance.info.get_usage()
images = len(list(glance.images.list()))
assert usage["image_count_total"] == {"limit": 1000, "usage": images}, usage
assert usage["image_size_total"]["limit"] == -1, usage

project = "0123456789abcdef0123456789abcdef"
member = glance.image_members.create(raw.id, project)
assert member.status == "pending"
assert [m.member_id for m in glance.image_members.list(raw.id)] == [project]
glance.image_members.delete(raw.id, project)

glance.images.deactivate(raw.id)
glance.images.reactivate(raw.id)
try:
    glance.images.get("11111111-2222-4333-8444-555555555555")
except exc.HTTPNotFound:
    pass
else:
    raise AssertionError("an unknown image is not found")

for number in range(12):
    glance.images.create(name=f"page-{number}", disk_format="raw", container_format="bare")
names = [i.name for i in glance.images.list(page_size=5, sort_key="name", sort_dir="asc")]
assert len(names) == len(set(names)) == 14 and names == sorted(names), names
for each in list(glance.images.list()):
    glance.images.delete(each.id)
assert list(glance.images.list()) == []
