#!/usr/bin/env python3
"""Checks infra/template.yaml, as written and as SAM transforms it, without an AWS account.

    infra/checks/check.py [--only NAME] [--template FILE] [--actions FILE]

Each check has a name and prints the problems that it finds. `--actions` names a file of the AWS
requests that the functions made during the tests (tests/it/actions.rs); without it, the roles are
not compared with them.
"""

import argparse
import contextlib
import io
import json
import logging
import os
import pathlib
import re
import sys
import tomllib

import boto3
from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator
from samtranslator.yaml_helper import yaml_parse

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
TEMPLATE = ROOT / "infra/template.yaml"
CHECKS = []

# Actions without a resource:
# https://docs.aws.amazon.com/service-authorization/latest/reference/list_awsx-ray.html
WITHOUT_RESOURCE = {"xray:PutTelemetryRecords", "xray:PutTraceSegments"}

# Permissions that AWS itself uses: a role needs them although its function makes no such request.
BY_AWS = {
    "logs:CreateLogStream",
    "logs:PutLogEvents",
    "xray:PutTelemetryRecords",
    "xray:PutTraceSegments",
    "kms:Decrypt",
    "kms:GenerateDataKey",
    # Lambda polls the queue for the worker.
    "sqs:ReceiveMessage",
    "sqs:DeleteMessage",
    # Lambda stores failed account events.
    ("account-events", "sqs:SendMessage", "AccountEventDeadLetters"),
    ("monthly-charge", "sqs:GetQueueAttributes", "ChargeQueue"),
    # The tests have only one of the two signing secrets.
    ("subscription-webhook", "secretsmanager:GetSecretValue", "StripeNextWebhookSecret"),
}


def check(function):
    CHECKS.append(function)
    return function


class Template:
    """The template as written, and as SAM transforms it."""

    def __init__(self, file):
        self.source = yaml_parse(pathlib.Path(file).read_text())
        written = yaml_parse(pathlib.Path(file).read_text())
        for resource in written["Resources"].values():
            if resource["Type"] == "AWS::Serverless::Function":
                # Stands for the place where `sam deploy` uploads the code.
                resource["Properties"]["CodeUri"] = "s3://bucket/key"
        os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")
        logging.disable(logging.WARNING)
        translator = Translator({}, Parser(), boto_session=boto3.Session())
        with contextlib.redirect_stdout(io.StringIO()):
            transformed = translator.translate(written, {"Stage": "dev"}, feature_toggle=None)
        self.transformed = json.loads(json.dumps(transformed, default=str))

    def of(self, kind):
        """The properties of the transformed resources of a type, by logical id."""
        resources = self.transformed["Resources"].items()
        return {id: it.get("Properties", {}) for id, it in resources if it["Type"] == kind}

    def functions(self):
        """The functions' names, as in functions/, logical ids and properties."""
        for id, properties in self.of("AWS::Lambda::Function").items():
            yield (
                properties["FunctionName"]["Fn::Sub"].removeprefix("greta-byok-${Stage}-"),
                id,
                properties,
            )

    def role_of(self, function):
        return self.of("AWS::IAM::Role")[target(function["Role"])]

    def routes(self):
        """The path, method and integration of each route."""
        for id, api in self.of("AWS::ApiGateway::RestApi").items():
            for path, methods in api["Body"]["paths"].items():
                for method, it in methods.items():
                    yield path, method, it.get("x-amazon-apigateway-integration", {})

    def statements(self):
        """The policy statements of roles and queues, each with the logical id of its owner."""
        for id, role in self.of("AWS::IAM::Role").items():
            for policy in role.get("Policies", []):
                for statement in policy["PolicyDocument"]["Statement"]:
                    yield id, statement
        for id, policy in self.of("AWS::SQS::QueuePolicy").items():
            for statement in policy["PolicyDocument"]["Statement"]:
                yield id, statement


def listed(value):
    return value if isinstance(value, list) else [value]


def target(reference):
    """The logical id that an intrinsic function refers to first."""
    if isinstance(reference, str):
        return reference
    if "Ref" in reference:
        return reference["Ref"]
    if "Fn::GetAtt" in reference:
        parts = reference["Fn::GetAtt"]
        return (parts if isinstance(parts, list) else parts.split("."))[0]
    if "Fn::Sub" in reference:
        return re.search(r"\$\{(\w+)[.}]", reference["Fn::Sub"])[1]
    raise ValueError(reference)


def resource_name(resource):
    """The resource's name in tests/it/actions.rs."""
    text = resource.get("Fn::Sub", "") if isinstance(resource, dict) else resource
    if "secret:greta-byok/${Stage}/openrouter/*" in text:
        return "user secrets"
    if "/index/" in text:
        return f"{target(resource)}/index/{text.rsplit('/', 1)[1]}"
    return target(resource)


@check
def streams(template):
    """AI calls are streamed for up to 15 minutes, and nothing else is."""
    timeouts = {name: function["Timeout"] for name, _, function in template.functions()}
    if timeouts["ai-proxy"] != 900:
        yield f"ai-proxy has {timeouts['ai-proxy']} s, but a stream may take 900 s"
    seen = 0
    for path, method, integration in template.routes():
        ours = "${AiProxy.Arn}" in integration["uri"]["Fn::Sub"]
        streamed = integration.get("responseTransferMode") == "STREAM"
        uri = integration["uri"]["Fn::Sub"].endswith("/response-streaming-invocations")
        if ours != streamed or ours != uri:
            yield f"{path} is {'streamed' if streamed else 'buffered'}, but its function is not"
        if ours and integration.get("timeoutInMillis") != 900_000:
            yield f"{path} is cut off after {integration.get('timeoutInMillis', 29_000)} ms"
        seen += ours
    if not seen:
        yield "no route leads to ai-proxy"


@check
def routes(template):
    """The API has the routes of `cargo lambda watch`, and each leads to the same function."""
    manifest = tomllib.loads((ROOT / "Cargo.toml").read_text())
    expected = manifest["workspace"]["metadata"]["lambda"]["watch"]["router"]
    names = {id: name for name, id, _ in template.functions()}
    found = {}
    for path, method, integration in template.routes():
        found[path] = names[re.search(r"\$\{(\w+)\.Arn\}", integration["uri"]["Fn::Sub"])[1]]
        if method != "x-amazon-apigateway-any-method":
            yield f"{method} {path}: API Gateway would refuse other methods in its own error shape"
    for path in sorted(expected.keys() | found.keys()):
        if expected.get(path) != found.get(path):
            yield f"{path} leads to {found.get(path)} instead of {expected.get(path)}"


@check
def wildcards(template):
    """No action or resource is granted by `*`, except for actions without a resource."""
    for id, statement in template.statements():
        for action in listed(statement["Action"]):
            if "*" in action:
                yield f"{id} grants {action}"
        if (
            "*" in listed(statement["Resource"])
            and not set(listed(statement["Action"])) <= WITHOUT_RESOURCE
        ):
            yield f"{id} grants {statement['Action']} on everything"


@check
def secrets(template):
    """Each secret is read, created and deleted only by the functions that need it."""
    readers, makers, deleters = {}, set(), set()
    for name, _, function in template.functions():
        for policy in template.role_of(function)["Policies"]:
            for statement in policy["PolicyDocument"]["Statement"]:
                for resource in listed(statement["Resource"]):
                    for action in listed(statement["Action"]):
                        if action == "secretsmanager:GetSecretValue":
                            readers.setdefault(resource_name(resource), set()).add(name)
                        elif action == "secretsmanager:CreateSecret":
                            makers.add(name)
                        elif action == "secretsmanager:DeleteSecret":
                            deleters.add(name)
    charging = {"integration-settings", "subscription-webhook", "monthly-charge"}
    expected = {
        "user secrets": {"ai-proxy", "key-save"},
        "DefaultAiSecret": {"ai-proxy", "monthly-charge"},
        "StripeApiSecret": charging,
        "StripeWebhookSecret": {"subscription-webhook"},
        "StripeNextWebhookSecret": {"subscription-webhook"},
    }
    for secret in sorted(readers.keys() | expected.keys()):
        if readers.get(secret) != expected.get(secret):
            yield f"{secret} is read by {readers.get(secret)} instead of {expected.get(secret)}"
    if makers != {"key-save"}:
        yield f"users' secrets are created by {makers}"
    if deleters != {"key-save", "monthly-charge", "account-events"}:
        yield f"users' secrets are deleted by {deleters}"


@check
def roles(template, actions):
    """Each role grants what its function needs, and nothing else."""
    if actions is None:
        return
    done = {}
    for line in pathlib.Path(actions).read_text().splitlines():
        function, action, resource = line.split(" ", 2)
        done.setdefault(function, set()).add((action, resource))
    for name, _, function in template.functions():
        granted = set()
        for policy in template.role_of(function)["Policies"]:
            for statement in policy["PolicyDocument"]["Statement"]:
                for action in listed(statement["Action"]):
                    granted |= {(action, resource_name(it)) for it in listed(statement["Resource"])}
        for action, resource in sorted(done.get(name, set()) - granted):
            yield f"{name} uses {action} on {resource} without permission"
        for action, resource in sorted(granted - done.get(name, set())):
            if not {action, (name, action, resource)} & BY_AWS:
                yield f"{name} may use {action} on {resource} but never does"


@check
def gateway_responses(template):
    """Clients of both error shapes can read API Gateway's own responses."""
    for api in template.of("AWS::ApiGateway::RestApi").values():
        answers = api["Body"].get("x-amazon-apigateway-gateway-responses", {})
        for kind in ["REQUEST_TOO_LARGE", "THROTTLED", "DEFAULT_4XX", "DEFAULT_5XX"]:
            if kind not in answers:
                yield f"{kind} has API Gateway's default body"
        for kind, answer in answers.items():
            text = answer.get("responseTemplates", {}).get("application/json", "")
            try:
                body = json.loads(text)
            except ValueError:
                yield f"{kind} is not JSON: {text}"
                continue
            error = body.get("error", {})
            missing_problem = {"type", "title", "detail", "code", "request_id"} - body.keys()
            missing_ai = {"message", "type", "code", "param", "metadata"} - error.keys()
            if missing_problem or missing_ai:
                yield f"{kind} lacks {sorted(missing_problem | missing_ai)}"
            elif error["type"] != body["code"] or not body["type"].endswith(f"/{body['code']}"):
                yield f"{kind} has several codes"
            elif str(error["code"]) != str(answer.get("statusCode")):
                yield f"{kind}: status {answer.get('statusCode')}, but error.code is {error['code']}"
            if str(body.get("status", answer.get("statusCode"))) != str(answer.get("statusCode")):
                yield f"{kind}: status {answer.get('statusCode')}, but the body has status {body.get('status')}"


@check
def binary_bodies(template):
    """Bodies are passed as binary: escaped text would exceed the size of an event."""
    for api in template.of("AWS::ApiGateway::RestApi").values():
        types = [str(it).replace("~1", "/") for it in api.get("BinaryMediaTypes", [])]
        if types != ["*/*"]:
            yield f"binary media types are {types}"
        if "MinimumCompressionSize" in api:
            yield "API Gateway compresses, which does not work for streams"


@check
def dead_letters(template):
    """Every queue, schedule, rule and asynchronous call has a dead letter queue."""
    queues = template.of("AWS::SQS::Queue")
    kept_in = {
        target(it["RedrivePolicy"]["deadLetterTargetArn"])
        for it in queues.values()
        if "RedrivePolicy" in it
    }

    def keeps(config, what):
        if not config:
            yield f"{what} has no dead letter queue"
        else:
            kept_in.add(target(config["Arn"]))

    for id, it in template.of("AWS::Scheduler::Schedule").items():
        yield from keeps(it["Target"].get("DeadLetterConfig"), id)
    for id, it in template.of("AWS::Events::Rule").items():
        for goal in it["Targets"]:
            yield from keeps(goal.get("DeadLetterConfig"), id)
            invoked = [
                config.get("DestinationConfig", {}).get("OnFailure")
                for config in template.of("AWS::Lambda::EventInvokeConfig").values()
                if target(config["FunctionName"]) == target(goal["Arn"])
            ]
            if not any(invoked):
                yield f"{target(goal['Arn'])} is called by {id} and loses events on which it fails"
    for id, it in queues.items():
        if "RedrivePolicy" not in it and id not in kept_in:
            yield f"{id} neither has nor is a dead letter queue"
        if id in kept_in and it.get("MessageRetentionPeriod") != 1209600:
            yield f"{id} keeps its messages for less than 14 days"


@check
def functions(template):
    """Each package in functions/ is deployed, for both architectures, with its own log and traces."""
    packages = {it.parent.name for it in (ROOT / "functions").glob("*/Cargo.toml")}
    found = set()
    for name, id, it in template.functions():
        found.add(name)
        uri = template.source["Resources"][id]["Properties"]["CodeUri"]
        if uri != f"../target/lambda/{name}/":
            yield f"{name} is deployed from {uri}"
        if it["Runtime"] != "provided.al2023" or it["Handler"] != "bootstrap":
            yield f"{name} runs on {it['Runtime']}"
        if it.get("Architectures") != [{"Ref": "Architecture"}]:
            yield f"{name} is built for {it.get('Architectures')}"
        if it.get("TracingConfig", {}).get("Mode") != "Active":
            yield f"{name} is not traced"
        logging_config = it.get("LoggingConfig", {})
        log = template.of("AWS::Logs::LogGroup").get(
            target(logging_config.get("LogGroup", "none")), {}
        )
        if (
            logging_config.get("LogFormat") != "JSON"
            or "RetentionInDays" not in log
            or "KmsKeyId" not in log
        ):
            yield f"{name} has no log with a retention and a key"
    architectures = template.source["Parameters"]["Architecture"]
    if set(architectures["AllowedValues"]) != {"arm64", "x86_64"}:
        yield f"functions can be built for {architectures['AllowedValues']}"
    for name in sorted(packages ^ found):
        yield f"{name} is {'not deployed' if name in packages else 'not a package'}"


@check
def time_outs(template):
    """API Gateway waits for its functions, and messages stay hidden for six batch time-outs."""
    by_id = {id: (name, function) for name, id, function in template.functions()}
    for path, _, integration in template.routes():
        id = re.search(r"\$\{(\w+)\.Arn\}", integration["uri"]["Fn::Sub"])[1]
        name, function = by_id[id]
        if function["Timeout"] * 1000 > integration.get("timeoutInMillis", 29_000):
            yield f"{path} times out while {name} still works"
    for it in template.of("AWS::Lambda::EventSourceMapping").values():
        queue = template.of("AWS::SQS::Queue")[target(it["EventSourceArn"])]
        name, function = by_id[target(it["FunctionName"])]
        if queue.get("VisibilityTimeout", 30) < 6 * function["Timeout"]:
            yield f"a batch of {name} reappears while it is processed"
        if it.get("FunctionResponseTypes") != ["ReportBatchItemFailures"]:
            yield f"{name} repeats a whole batch if one message fails"


@check
def concurrency(template):
    """Long streams leave concurrency for webhooks and billing."""
    for name, _, it in template.functions():
        reserved = it.get("ReservedConcurrentExecutions", {}).get("Fn::If", [None, None])
        needs = name in {
            "ai-proxy",
            "subscription-webhook",
            "monthly-charge",
            "account-events",
            "reconciler",
        }
        if needs and (reserved[0] != "Reserves" or not reserved[1]):
            yield f"{name} has no reserved concurrency"
    by_id = {id: (name, function) for name, id, function in template.functions()}
    for it in template.of("AWS::Lambda::EventSourceMapping").values():
        name, function = by_id[target(it["FunctionName"])]
        limit = it.get("ScalingConfig", {}).get("MaximumConcurrency")
        if limit is None or limit != function["Environment"]["Variables"].get("CHARGE_CONCURRENCY"):
            yield f"the workers of {name} do not know how many share Stripe's rate limit"


@check
def tables(template):
    """Stored data cannot be lost, or read by others."""
    for id, resource in template.transformed["Resources"].items():
        if resource["Type"] != "AWS::DynamoDB::Table":
            continue
        it = resource["Properties"]
        if it.get("PointInTimeRecoverySpecification") != {"PointInTimeRecoveryEnabled": True}:
            yield f"{id} cannot be restored to a point in time"
        if (
            it.get("DeletionProtectionEnabled") is not True
            or resource.get("DeletionPolicy") != "Retain"
        ):
            yield f"{id} can be deleted"
        if resource.get("UpdateReplacePolicy") != "Retain":
            yield f"{id} can be replaced"
        encryption = it.get("SSESpecification", {})
        if (
            encryption.get("SSEType") != "KMS"
            or target(encryption.get("KMSMasterKeyId", "none")) != "Key"
        ):
            yield f"{id} is not encrypted with the deployment's key"
        if it.get("BillingMode") != "PAY_PER_REQUEST":
            yield f"{id} is not on demand"
    if len(template.of("AWS::DynamoDB::Table")) != 5:
        yield "there are not 5 tables"


@check
def logs_without_content(template):
    """API Gateway logs no bodies, no headers and no tokens."""
    for it in template.of("AWS::ApiGateway::Stage").values():
        log = it.get("AccessLogSetting", {})
        names = set(re.findall(r"\$(\w+[\w.]*)", log.get("Format", "")))
        kept = {it for it in names if not it.startswith("context.") or "authorizer" in it}
        if not names or kept:
            yield f"access logs contain {sorted(kept) or 'nothing'}"
        for settings in it.get("MethodSettings", []):
            if (
                settings.get("DataTraceEnabled") is not False
                or settings.get("LoggingLevel") != "OFF"
            ):
                yield "execution logs contain bodies and headers"
            if not settings.get("ThrottlingRateLimit") or not settings.get("ThrottlingBurstLimit"):
                yield "requests are not throttled"
        if it.get("TracingEnabled") is not True:
            yield "requests are not traced"


@check
def alarms(template):
    """Each alarm has a recipient, a runbook and an existing metric."""
    operations = (ROOT / "docs/operations.md").read_text()
    headings = {
        re.sub(r"[^a-z0-9 -]", "", it.lower()).replace(" ", "-")
        for it in re.findall(r"^#+ (.+)$", operations, re.M)
    }
    sources = [*ROOT.glob("functions/*/src/**/*.rs"), *ROOT.glob("shared/*/src/**/*.rs")]
    code = "".join(it.read_text() for it in sources)
    counted = set(re.findall(r'metric\(\s*"(\w+)"', code))
    filtered = {
        made["MetricName"]
        for it in template.of("AWS::Logs::MetricFilter").values()
        for made in it["MetricTransformations"]
    }
    for id, it in template.of("AWS::CloudWatch::Alarm").items():
        if not it.get("AlarmActions"):
            yield f"{id} notifies no one"
        place = re.search(r"docs/operations\.md#([a-z-]+)", it.get("AlarmDescription", ""))
        if not place or place[1] not in headings:
            yield f"{id} has no runbook"
        watched = (
            [it]
            if "MetricName" in it
            else [query["MetricStat"]["Metric"] for query in it["Metrics"] if "MetricStat" in query]
        )
        for metric in watched:
            if (
                metric["Namespace"] == "GretaByok"
                and metric["MetricName"] not in counted | filtered
            ):
                yield f"{id} watches {metric['MetricName']}, which nothing emits"
    watched = json.dumps(template.of("AWS::CloudWatch::Alarm")) + json.dumps(
        template.of("AWS::CloudWatch::Dashboard")
    )
    for name in sorted(counted):
        if name not in watched:
            yield f"{name} is emitted, but neither an alarm nor the dashboard shows it"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only")
    parser.add_argument("--template", default=TEMPLATE)
    parser.add_argument("--actions")
    arguments = parser.parse_args()
    template = Template(arguments.template)
    failed = 0
    for it in CHECKS:
        if arguments.only not in (None, it.__name__):
            continue
        found = list(it(template, arguments.actions) if it is roles else it(template))
        skipped = it is roles and arguments.actions is None
        print(
            f"{'FAILED' if found else 'skipped' if skipped else 'ok'} {it.__name__}: {it.__doc__.splitlines()[0]}"
        )
        for line in found:
            print(f"    {line}")
        failed += bool(found)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
