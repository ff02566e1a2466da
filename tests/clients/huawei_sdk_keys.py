"""huaweicloudsdkkms: signed requests for master keys. It takes host and port of its endpoint and drops the path, so the
calls arrive at the root."""

import hashlib
import os

import openstack
from huaweicloudsdkcore.auth.credentials import BasicCredentials
from huaweicloudsdkcore.exceptions.exceptions import ClientRequestException
from huaweicloudsdkkms import v2

URL = os.environ["CALOTYPE_URL"]
PROJECT = os.environ["CALOTYPE_PROJECT"]


def client(secret, endpoint):
    credentials = BasicCredentials(os.environ["CALOTYPE_ACCESS_KEY"], secret, PROJECT)
    return v2.KmsClient.new_builder().with_credentials(credentials).with_endpoint(endpoint).build()


cloud = openstack.connect(cloud=os.environ["OS_CLOUD"])
# The path is what the documents say; it is lost on the way.
kms = client(os.environ["CALOTYPE_SECRET_KEY"], URL + "/kms")

body = v2.CreateKeyRequestBody(key_alias="signed", key_spec="AES_256", key_usage="ENCRYPT_DECRYPT", origin="kms")
made = kms.create_key(v2.CreateKeyRequest(body=body)).key_info
assert made.domain_id == "default" and made.region_id == cloud.config.region_name, made
key = made.key_id
one = v2.OperateKeyRequestBody(key_id=key)
shown = kms.list_key_detail(v2.ListKeyDetailRequest(body=one)).key_info
assert (shown.key_alias, shown.key_state, shown.key_rotation_enabled, shown.keystore_id) == (
    "signed", "2", "false", "0"), shown
listed = kms.list_keys(v2.ListKeysRequest(body=v2.ListKeysRequestBody(limit="10", marker="", key_state="2", key_spec="ALL")))
assert (listed.keys, listed.total, listed.truncated, listed.next_marker) == ([key], 1, "false", ""), listed

assert kms.disable_key(v2.DisableKeyRequest(body=one)).key_info.key_state == "3"
assert kms.enable_key(v2.EnableKeyRequest(body=one)).key_info.key_state == "2"
renamed = v2.UpdateKeyAliasRequestBody(key_id=key, key_alias="renamed")
assert kms.update_key_alias(v2.UpdateKeyAliasRequest(body=renamed)).key_info.key_alias == "renamed"
text = v2.UpdateKeyDescriptionRequestBody(key_id=key, key_description="signed")
assert kms.update_key_description(v2.UpdateKeyDescriptionRequest(body=text)).key_info.key_description == "signed"

for spec, length, digits in (("AES_256", None, 64), ("AES_128", None, 32), (None, "512", 128)):
    body = v2.CreateDatakeyRequestBody(key_id=key, key_spec=spec, datakey_length=length,
                                    additional_authenticated_data="aad")
    fresh = kms.create_datakey(v2.CreateDatakeyRequest(body=body))
    assert len(fresh.plain_text) == digits, fresh
    body = v2.DecryptDatakeyRequestBody(key_id=key, cipher_text=fresh.cipher_text,
                                     datakey_cipher_length=str(digits // 2), additional_authenticated_data="aad")
    opened = kms.decrypt_datakey(v2.DecryptDatakeyRequest(body=body))
    digest = hashlib.sha256(bytes.fromhex(opened.data_key)).hexdigest()
    assert opened.data_key == fresh.plain_text and opened.datakey_dgst.lower() == digest, opened
hidden = kms.create_datakey_without_plaintext(
    v2.CreateDatakeyWithoutPlaintextRequest(body=v2.CreateDatakeyRequestBody(key_id=key)))
assert hidden.cipher_text and hidden.key_id == key, hidden
plain = bytes(range(32))
body = v2.EncryptDatakeyRequestBody(key_id=key, plain_text=plain.hex() + hashlib.sha256(plain).hexdigest(),
                                 datakey_plain_length="32")
wrapped = kms.encrypt_datakey(v2.EncryptDatakeyRequest(body=body))
assert wrapped.datakey_length == "32", wrapped
body = v2.DecryptDatakeyRequestBody(key_id=key, cipher_text=wrapped.cipher_text, datakey_cipher_length="32")
assert bytes.fromhex(kms.decrypt_datakey(v2.DecryptDatakeyRequest(body=body)).data_key) == plain

sealed = kms.encrypt_data(v2.EncryptDataRequest(body=v2.EncryptDataRequestBody(key_id=key, plain_text="grüße")))
opened = kms.decrypt_data(v2.DecryptDataRequest(body=v2.DecryptDataRequestBody(cipher_text=sealed.cipher_text)))
assert (opened.plain_text, opened.key_id) == ("grüße", key), opened
random = kms.create_random(v2.CreateRandomRequest(body=v2.GenRandomRequestBody(random_data_length="256")))
assert len(random.random_data) == 64, random

status = v2.ShowKeyRotationStatusRequest(body=one)
assert kms.show_key_rotation_status(status).key_rotation_enabled is False
kms.enable_key_rotation(v2.EnableKeyRotationRequest(body=one))
kms.update_key_rotation_interval(
    v2.UpdateKeyRotationIntervalRequest(body=v2.UpdateKeyRotationIntervalRequestBody(key_id=key, rotation_interval=30)))
assert kms.rotate_on_demand(v2.RotateOnDemandRequest(body=v2.RotateOnDemandRequestBody(key_id=key))).key_id == key
shown = kms.show_key_rotation_status(status)
assert (shown.key_rotation_enabled, shown.rotation_interval, shown.number_of_rotations) == (True, 30, 1), shown
kms.disable_key_rotation(v2.DisableKeyRotationRequest(body=one))
assert bytes.fromhex(kms.decrypt_datakey(v2.DecryptDatakeyRequest(body=body)).data_key) == plain

grant = v2.CreateGrantRequestBody(key_id=key, grantee_principal="0" * 32, operations=["describe-key", "decrypt-datakey"],
                               name="g", grantee_principal_type="user")
grant = kms.create_grant(v2.CreateGrantRequest(body=grant)).grant_id
listed = kms.list_grants(v2.ListGrantsRequest(body=v2.ListGrantsRequestBody(key_id=key, limit="100")))
assert [g.grant_id for g in listed.grants] == [grant] and listed.grants[0].operations[1] == "decrypt-datakey", listed
assert kms.list_retirable_grants(v2.ListRetirableGrantsRequest(body=v2.ListRetirableGrantsRequestBody())).total == 0
kms.cancel_grant(v2.CancelGrantRequest(body=v2.RevokeGrantRequestBody(key_id=key, grant_id=grant)))

kms.create_kms_tag(v2.CreateKmsTagRequest(key_id=key, body=v2.CreateKmsTagRequestBody(tag=v2.TagItem(key="a", value="1"))))
tags = v2.BatchCreateKmsTagsRequestBody(action="create", tags=[v2.TagItem(key="b", value="2")])
kms.batch_create_kms_tags(v2.BatchCreateKmsTagsRequest(key_id=key, body=tags))
shown = kms.show_kms_tags(v2.ShowKmsTagsRequest(key_id=key))
assert ([(t.key, t.value) for t in shown.tags], shown.exist_tags_num) == ([("a", "1"), ("b", "2")], 2), shown
wanted = v2.ListKmsByTagsRequestBody(action="filter", limit="10", offset="0", tags=[v2.Tag(key="b", values=["2"])])
found = kms.list_kms_by_tags(v2.ListKmsByTagsRequest(resource_instances="resource_instances", body=wanted))
assert found.total_count == 1 and found.resources[0].resource_detail.key_alias == "renamed", found
assert [t.key for t in kms.list_kms_tags(v2.ListKmsTagsRequest()).tags] == ["a", "b"]
kms.delete_tag(v2.DeleteTagRequest(key_id=key, key="a"))

assert kms.show_user_instances(v2.ShowUserInstancesRequest()).instance_num == 1
quotas = kms.show_user_quotas(v2.ShowUserQuotasRequest()).quotas.resources
assert [(q.type, q.used, q.quota) for q in quotas] == [("CMK", 1, 100), ("grant_per_CMK", 0, 100)], quotas

days = v2.ScheduleKeyDeletionRequestBody(key_id=key, pending_days="7")
assert kms.delete_key(v2.DeleteKeyRequest(body=days)).key_state == "4"
assert kms.cancel_key_deletion(v2.CancelKeyDeletionRequest(body=one)).key_state == "3"


def refused(call, status, code):
    try:
        call()
    except ClientRequestException as error:
        assert (error.status_code, error.error_code) == (status, code), error
        assert error.request_id, error
        return
    raise AssertionError("it was not refused")


refused(lambda: kms.disable_key(v2.DisableKeyRequest(body=one)), 400, "KMS.1301")
missing = v2.OperateKeyRequestBody(key_id="0d0466b0-e727-4d9c-b35d-f84bb474a37f")
refused(lambda: kms.list_key_detail(v2.ListKeyDetailRequest(body=missing)), 404, "KMS.0207")
wrong = client("0" * 40, URL)
refused(lambda: wrong.list_keys(v2.ListKeysRequest(body=v2.ListKeysRequestBody())), 401, "KMS.0302")

# The catalog of services has it twice: with the project's id, and without.
project, region = cloud.session.get_project_id(), cloud.config.region_name
for kind, url in (("kms", URL + "/kms/v1.0"), ("kmsv1", f"{URL}/kms/v1.0/{project}")):
    found = cloud.session.get_endpoint(service_type=kind, interface="public", region_name=region)
    assert found == url, (kind, found)
