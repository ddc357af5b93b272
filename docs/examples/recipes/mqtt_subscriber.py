# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
An MQTT subscriber: every byte of the broker's proves life, and not its PINGRESP alone.

    python mqtt_subscriber.py tcp:127.0.0.1:1883
"""

import sys

from mqtt.client.factory import MQTTFactory
from mqtt.pdu import PINGREQ
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString
from twisted.internet.task import react
from twisted.logger import globalLogPublisher, textFileLogObserver

from twisted_heartbeat import Heartbeat, HeartbeatClientService

KEEPALIVE = 30
"""Seconds; what the broker is promised: it takes the client for dead after half as many again."""


def heard(topic, payload, qos, dup, retain, messageId):
    """What twisted-mqtt calls for each message."""
    print(f"heard {payload.decode()}", flush=True)


class Subscribers(MQTTFactory):
    """twisted-mqtt, without its own timer."""

    def __init__(self):
        super().__init__(MQTTFactory.SUBSCRIBER)

    def buildProtocol(self, addr):
        mqtt = super().buildProtocol(addr)
        mqtt.onPublish = heard
        # Its own ping aborts if there is no PINGRESP, also while other data comes, and must not be
        # called again before that. This one only sends, every KEEPALIVE seconds and when asked.
        mqtt.ping = lambda: mqtt.transport.write(PINGREQ().encode())
        mqtt.handlePINGRESP = lambda: None
        return mqtt


async def prepare(mqtt):
    """Bring a new connection to where the last one was: a session, and subscribed."""
    await mqtt.connect("sensor-17", keepalive=KEEPALIVE)
    await mqtt.subscribe("news", 1)


def main(reactor, broker="tcp:127.0.0.1:1883", within="8"):
    """Keep a subscriber connected until it is interrupted."""
    globalLogPublisher.addObserver(textFileLogObserver(sys.stdout))
    HeartbeatClientService(
        clientFromString(reactor, broker),
        Subscribers(),
        prepareConnection=prepare,
        heartbeat=Heartbeat.within(float(within)),
        ping=lambda mqtt: mqtt.ping(),
    ).startService()
    return Deferred()


if __name__ == "__main__":
    react(main, sys.argv[1:])
