"""Reads a configuration with nothing but grpcio and server reflection.

A client that shares no code with this project: it learns the service, its methods and its messages
from the server itself. Usage: read_config.py APPLICATION IDENTIFIER [admin|runtime]

Environment: SSO_ADDR (https://host:port), SSO_CA, SSO_CERT, SSO_KEY (PEM files).
Prints the configuration as one line of JSON. Exit code 1 and the status on standard error when refused.
"""

import json
import os
import sys
from pathlib import Path
from urllib.parse import urlsplit

import grpc
from google.protobuf import descriptor_pool, json_format, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

SERVICE = "sso.v1.ConfigStore"
MODES = {"admin": "READ_MODE_ADMIN", "runtime": "READ_MODE_RUNTIME"}


def channel() -> grpc.Channel:
    credentials = grpc.ssl_channel_credentials(
        root_certificates=Path(os.environ["SSO_CA"]).read_bytes(),
        private_key=Path(os.environ["SSO_KEY"]).read_bytes(),
        certificate_chain=Path(os.environ["SSO_CERT"]).read_bytes(),
    )
    return grpc.secure_channel(urlsplit(os.environ["SSO_ADDR"]).netloc, credentials)


def read(connection: grpc.Channel, application: str, identifier: str, mode: str) -> dict:
    database = ProtoReflectionDescriptorDatabase(connection)
    services = list(database.get_services())
    if SERVICE not in services:
        raise SystemExit(f"reflection lists no {SERVICE}: {services}")
    pool = descriptor_pool.DescriptorPool(database)
    method = pool.FindServiceByName(SERVICE).FindMethodByName("Get")
    request = message_factory.GetMessageClass(method.input_type)(
        application=application,
        identifier=identifier,
        mode=pool.FindEnumTypeByName("sso.v1.ReadMode").values_by_name[MODES[mode]].number,
    )
    response_class = message_factory.GetMessageClass(method.output_type)
    call = connection.unary_unary(
        f"/{SERVICE}/{method.name}",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=response_class.FromString,
    )
    answer = json_format.MessageToDict(call(request, timeout=10), preserving_proto_field_name=True)
    return answer["configuration"]


def main() -> int:
    application, identifier, mode = (sys.argv[1:] + ["runtime"])[:3]
    with channel() as connection:
        try:
            configuration = read(connection, application, identifier, mode)
        except grpc.RpcError as refusal:
            print(f"{refusal.code().name}: {refusal.details()}", file=sys.stderr)
            return 1
    print(json.dumps(configuration, sort_keys=True))
    return 0


if __name__ == "__main__":
    sys.exit(main())
