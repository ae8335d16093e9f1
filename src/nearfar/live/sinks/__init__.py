"""Where messages go: files, webhooks, MQTT, Prometheus, OPC-UA. A slow or dead sink never holds up the listening."""
