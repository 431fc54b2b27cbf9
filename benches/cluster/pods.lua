-- For wrk: each request makes a pod with a name of its own, as the controllers of the API server do.
-- Reads IMAGE and TOKEN; at the end prints one line: how many requests led to no pod, and the 99th percentile of the latency in
-- microseconds.
local image, token = os.getenv("IMAGE"), os.getenv("TOKEN")

wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer " .. token
wrk.body = [[{"apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "web-7c9f6b8d54-", "namespace": "default",
  "labels": {"app.kubernetes.io/name": "web", "app.kubernetes.io/part-of": "shop", "pod-template-hash": "7c9f6b8d54"},
  "annotations": {"prometheus.io/scrape": "true", "prometheus.io/port": "8080"}},
"spec": {"restartPolicy": "Always", "terminationGracePeriodSeconds": 30, "securityContext": {"runAsNonRoot": true},
  "volumes": [{"name": "configuration", "configMap": {"name": "web"}}, {"name": "scratch", "emptyDir": {}}],
  "containers": [{"name": "web", "image": "]] .. image .. [[", "args": ["--listen", "0.0.0.0:8080"],
    "ports": [{"name": "http", "containerPort": 8080}],
    "env": [{"name": "LOG_LEVEL", "value": "info"}, {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
    "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
    "livenessProbe": {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 10},
    "readinessProbe": {"httpGet": {"path": "/readyz", "port": "http"}, "periodSeconds": 5},
    "volumeMounts": [{"name": "configuration", "mountPath": "/etc/web"}, {"name": "scratch", "mountPath": "/tmp"}]}]}}]]

function done(summary, latency, requests)
  local errors = summary.errors
  local bad = errors.connect + errors.read + errors.write + errors.status + errors.timeout
  print(string.format("RESULT %d %d", bad, latency:percentile(99)))
end
