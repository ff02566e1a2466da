"""huaweicloudsdkims: one signed list of images; prints the status that it gets."""

import os

from huaweicloudsdkcore.auth.credentials import BasicCredentials
from huaweicloudsdkcore.exceptions.exceptions import ServiceResponseException
from huaweicloudsdkims.v2 import ImsClient, ListImagesRequest

credentials = BasicCredentials(
    os.environ["CALOTYPE_ACCESS_KEY"], os.environ["CALOTYPE_SECRET_KEY"], os.environ["CALOTYPE_PROJECT"]
)
client = ImsClient.new_builder().with_credentials(credentials).with_endpoint(os.environ["CALOTYPE_URL"]).build()
try:
    client.list_images(ListImagesRequest())
    print(200)
except ServiceResponseException as error:
    print(error.status_code)
