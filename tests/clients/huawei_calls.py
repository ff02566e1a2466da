"""Notes each call of huaweicloudsdkims that a server has answered, in the file that CALOTYPE_CALLS names."""

import functools
import os

from huaweicloudsdkcore.exceptions.exceptions import ServiceResponseException
from huaweicloudsdkims.v2 import ImsClient

# Each method that makes a request has its description beside it.
ALL = {name for name in vars(ImsClient) if f"_{name}_http_info" in vars(ImsClient)}
FILE = os.environ["CALOTYPE_CALLS"]


def noted(name, call):
    @functools.wraps(call)
    def made(self, request):
        try:
            answer = call(self, request)
        except ServiceResponseException:
            note(name)
            raise
        note(name)
        return answer

    return made


def note(name):
    with open(FILE, "a") as file:
        file.write(name + "\n")


def made():
    with open(FILE) as file:
        return set(file.read().split())


for name in ALL:
    setattr(ImsClient, name, noted(name, getattr(ImsClient, name)))
