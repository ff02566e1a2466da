"""otcextensions: every call that it has for master keys, found through the catalog's type `kms`."""

import os

import openstack
from openstack import exceptions
from otcextensions import sdk
from otcextensions.sdk.kms.v1 import data_key

conn = openstack.connect(cloud=os.environ["OS_CLOUD"])
sdk.register_otc_extensions(conn)
kms = conn.kms

made = [kms.create_key(key_alias=f"key-{n}", key_description="by otcextensions", realm="eu-de") for n in range(3)]
key = made[0]
assert all(len(k.key_id) == 36 for k in made), made

shown = kms.get_key(key.key_id)
assert (shown.key_alias, shown.key_state, shown.realm, shown.key_description) == (
    "key-0", "2", "eu-de", "by otcextensions"), shown
assert shown.default_key_flag == "0" and shown.scheduled_deletion_date == "", shown

# By alias it is described, refused, and looked for in the list.
assert kms.find_key("key-1").key_id == made[1].key_id
assert kms.find_key(made[1].key_id).key_id == made[1].key_id
assert kms.find_key("no-such-key", ignore_missing=True) is None

# All pages, with one key on each.
assert [k.key_alias for k in kms.keys(limit=1)] == ["key-2", "key-1", "key-0"]
assert [k.key_alias for k in kms.keys()] == ["key-2", "key-1", "key-0"]


def refused(call, kind, code=None):
    try:
        call()
    except kind as error:
        assert code is None or code in str(error) + str(getattr(error, "details", "")), error
        return
    raise AssertionError("it was not refused")


refused(lambda: kms.create_key(key_alias="key-0"), exceptions.DuplicateResource)
refused(lambda: kms.get_key("0d0466b0-e727-4d9c-b35d-f84bb474a37f"), exceptions.NotFoundException)

assert kms.disable_key(key.key_id).key_state == "3"
assert [k.key_id for k in kms.keys(key_state=3)] == [key.key_id]
assert kms.enable_key(key.key_id).key_state == "2"
assert kms.schedule_key_deletion(made[2].key_id, 7).key_state == "4"
assert kms.cancel_key_deletion(made[2].key_id).key_state == "3"

fresh = kms.create_datakey(key.key_id, datakey_length=512)
assert len(fresh.plain_text) == 128 and fresh.key_id == key.key_id, fresh
opened = kms.decrypt_datakey(key.key_id, fresh.cipher_text, 64)
assert opened.plain_text.lower() == fresh.plain_text.lower(), opened
hidden = kms.create_datakey_wo_plain(key.key_id, datakey_length=512)
assert hidden.cipher_text and not hidden.plain_text, hidden

own = data_key.DataKey(key_id=key.key_id, plain_text="00" * 64)
wrapped = kms.encrypt_datakey(own)
assert wrapped.cipher_text, wrapped
opened = kms.decrypt_datakey(key.key_id, wrapped.cipher_text, wrapped.datakey_length)
assert opened.plain_text.lower() == "00" * 64, opened

assert len(kms.generate_random(512).random_data) == 128
assert kms.get_instance_number().instance_num == 3
quotas = {q.type: (q.used, q.quota) for q in kms.quotas()}
assert quotas == {"CMK": (3, 100), "grant_per_CMK": (0, 100)}, quotas
