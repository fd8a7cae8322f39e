"""A gRPC client that knows nothing but an address: its messages come from the server's reflection. Prints what it saw as JSON."""

import json
import sys
import time

import grpc
from google.protobuf import message_factory
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

SERVICE = "leno.standin.v1.Echo"
seen = {}

channel = grpc.insecure_channel(sys.argv[1])
reflection = ProtoReflectionDescriptorDatabase(channel)
seen["services"] = sorted(reflection.get_services())
pool = DescriptorPool(reflection)
service = pool.FindServiceByName(SERVICE)
Request = message_factory.GetMessageClass(pool.FindMessageTypeByName("leno.standin.v1.EchoRequest"))
Response = message_factory.GetMessageClass(pool.FindMessageTypeByName("leno.standin.v1.EchoResponse"))


def method(kind, name):
    assert service.FindMethodByName(name) is not None
    return getattr(channel, kind)(
        f"/{SERVICE}/{name}",
        request_serializer=Request.SerializeToString,
        response_deserializer=Response.FromString,
    )


def failure(call):
    try:
        call()
    except grpc.RpcError as error:
        return {"code": error.code().name, "details": error.details()}
    return None


unary = method("unary_unary", "Unary")
answer, call = unary.with_call(Request(message="hello", no_calls=True), timeout=20, metadata=[("x-tag", "a"), ("x-tag", "b")])
seen["unary"] = {"message": answer.message, "app": answer.app, "code": call.code().name, "tag": answer.metadata["x-tag"]}
seen["peer"] = answer.metadata["x-forwarded-client-cert"]

many = method("unary_stream", "ServerStream")(Request(message="again", repeat=500), timeout=20)
seen["server_stream"] = [answer.count for answer in many] == list(range(1, 501))

large = "x" * 1_000_000
uploaded = method("stream_unary", "ClientStream")((Request(message=large) for _ in range(20)), timeout=20)
seen["client_stream"] = {"count": uploaded.count, "whole": uploaded.message == large}

# Each message waits for the answer to the one before, so nothing on the way may hold one back.
answers = []


def in_turn():
    for number in range(50):
        while len(answers) < number:
            time.sleep(0.001)
        yield Request(message=str(number))


for answer in method("stream_stream", "Bidi")(in_turn(), timeout=20):
    answers.append(answer.message)
seen["bidi"] = answers == [str(number) for number in range(50)]

began = time.monotonic()
seen["deadline"] = failure(lambda: unary(Request(message="late", delay_ms=20_000, no_calls=True), timeout=0.5))
seen["deadline_in_time"] = time.monotonic() - began < 15
seen["trailers_only"] = failure(lambda: unary(Request(message="x", status_code=9, no_calls=True), timeout=20))
broken = method("unary_stream", "ServerStream")(Request(message="x", repeat=3, status_code=10), timeout=20)
got = []
seen["status_after_messages"] = failure(lambda: got.extend(broken))
seen["messages_before_status"] = len(got)
unknown = channel.unary_unary("/no.such.Service/Method", request_serializer=bytes, response_deserializer=bytes)
seen["unknown"] = failure(lambda: unknown(b"", timeout=20))

health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=""), timeout=20)
seen["health"] = health_pb2.HealthCheckResponse.ServingStatus.Name(health.status)

print(json.dumps(seen))
