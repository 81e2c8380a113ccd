"""Devices and models as DMI messages, and reports back.  Pure.

KubeEdge's mappers crash on a property without `configData`, so it is always there.   Source: protocol notes on DMI, section
6."""

import hashlib
from collections.abc import Mapping
from typing import Any

from beehive._generated import dmi_pb2 as pb
from beehive.apis.anyvalue import to_any
from beehive.apis.devices import Device, DeviceModel, DeviceProperty, PushMethod
from beehive.apis.twins import ANOMALY
from devicetwin.twin import Reading


def _fill(target: Any, data: Mapping[str, Any]) -> None:
    """Set a CustomizedValue; it is present afterwards, empty or not."""
    target.SetInParent()
    for key, value in data.items():
        packed = to_any(value)
        if packed is not None:
            target.data[key].CopyFrom(packed)


def to_model(model: DeviceModel) -> pb.DeviceModel:
    out = pb.DeviceModel(name=model.metadata.name, namespace=model.metadata.namespace)
    out.spec.SetInParent()
    for row in model.spec.properties:
        out.spec.properties.add(
            name=row.name,
            description=row.description,
            type=row.type,
            accessMode=row.access_mode,
            minimum=row.minimum,
            maximum=row.maximum,
            unit=row.unit,
        )
    return out


def to_device(device: Device, wishes: Mapping[str, str]) -> pb.Device:
    """wishes: the desired values in force, which may be other than the spec's (the edge can set them)."""
    out = pb.Device(name=device.metadata.name, namespace=device.metadata.namespace)
    spec = out.spec
    spec.deviceModelReference = device.model_id.partition("/")[2]
    spec.protocol.protocolName = device.spec.protocol.protocol_name
    _fill(spec.protocol.configData, device.spec.protocol.config_data)
    for prop in device.spec.properties:
        _property(spec.properties.add(), prop, wishes.get(prop.name, ""))
    for method in device.spec.methods:
        spec.methods.add(
            name=method.name, description=method.description, propertyNames=method.property_names
        )
    report = device.state_report
    out.status.reportToCloud = report.report_to_cloud
    out.status.reportCycle = max(report.report_cycle, 0)
    return out


def _property(out: pb.DeviceProperty, prop: DeviceProperty, wish: str) -> None:
    out.name = prop.name
    out.reportCycle = prop.report_cycle
    out.collectCycle = prop.collect_cycle
    out.reportToCloud = prop.report_to_cloud
    out.desired.value = wish
    out.desired.SetInParent()
    if prop.desired is not None:
        out.desired.metadata.update(prop.desired.metadata)
    out.visitors.protocolName = prop.visitors.protocol_name if prop.visitors is not None else ""
    _fill(out.visitors.configData, prop.visitors.config_data if prop.visitors is not None else {})
    if prop.push_method is not None:
        _push(out.pushMethod, prop.push_method)


def _push(out: pb.PushMethod, push: PushMethod) -> None:
    if push.http is not None:
        http = push.http
        out.http.CopyFrom(
            pb.PushMethodHTTP(
                hostname=http.host_name, port=http.port, requestpath=http.request_path, timeout=http.timeout
            )
        )
    if push.mqtt is not None:
        mqtt = push.mqtt
        out.mqtt.CopyFrom(
            pb.PushMethodMQTT(address=mqtt.address, topic=mqtt.topic, qos=mqtt.qos, retained=mqtt.retained)
        )
    if push.otel is not None:
        out.otel.endpointURL = push.otel.endpoint_url
    if push.anomaly_detection is not None:
        _fill(out.anomalyDetection, push.anomaly_detection)
    if push.db_method is not None:
        _database(out.dbMethod, push)


def _database(out: pb.DBMethod, push: PushMethod) -> None:
    method = push.db_method
    assert method is not None
    if method.influxdb2 is not None:
        client, data = method.influxdb2.influxdb2_client_config, method.influxdb2.influxdb2_data_config
        out.influxdb2.SetInParent()
        if client is not None:
            out.influxdb2.influxdb2ClientConfig.CopyFrom(
                pb.Influxdb2ClientConfig(url=client.url, org=client.org, bucket=client.bucket)
            )
        if data is not None:
            out.influxdb2.influxdb2DataConfig.CopyFrom(
                pb.Influxdb2DataConfig(measurement=data.measurement, tag=data.tag, fieldKey=data.field_key)
            )
    if method.redis is not None and method.redis.redis_client_config is not None:
        redis = method.redis.redis_client_config
        out.redis.redisClientConfig.CopyFrom(
            pb.RedisClientConfig(
                addr=redis.addr, db=redis.db, poolsize=redis.poolsize, minIdleConns=redis.min_idle_conns
            )
        )
    if method.tdengine is not None and method.tdengine.client_config is not None:
        tdengine = method.tdengine.client_config
        out.tdengine.tdEngineClientConfig.CopyFrom(
            pb.TDEngineClientConfig(addr=tdengine.addr, dbname=tdengine.db_name)
        )
    if method.mysql is not None and method.mysql.mysql_client_config is not None:
        mysql = method.mysql.mysql_client_config
        out.mysql.mysqlClientConfig.CopyFrom(
            pb.MySQLClientConfig(addr=mysql.addr, database=mysql.database, userName=mysql.user_name)
        )


def digest(device: pb.Device, model: pb.DeviceModel) -> str:
    """A short text that differs when what a mapper is told of a device differs."""
    # Sorting of properties and methods is left as given: a reordered spec is told again, which is harmless.
    both = device.SerializeToString(deterministic=True) + b"\0" + model.SerializeToString(deterministic=True)
    return hashlib.blake2b(both, digest_size=12).hexdigest()


def readings(request: pb.ReportDeviceStatusRequest) -> list[Reading]:
    """What a mapper reports.  An unset side says nothing (KubeEdge's edgecore dies of it)."""
    return [
        Reading(
            name=twin.propertyName,
            reported=twin.reported.value if twin.HasField("reported") else None,
            observed=twin.observedDesired.value if twin.HasField("observedDesired") else None,
            anomaly=twin.reported.metadata.get(ANOMALY, "")[:256],
        )
        for twin in request.reportedDevice.twins
    ]
