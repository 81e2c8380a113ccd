"""Manifests of the shape that widely used Helm charts render, applied as they are and run by a kubelet of this test."""

from __future__ import annotations

from pathlib import Path

from tests.integration.standalone.test_workloads import Cluster, on_cluster

LABELS = "{app.kubernetes.io/name: %s, app.kubernetes.io/instance: rel, app.kubernetes.io/managed-by: Helm}"

NGINX = """
apiVersion: v1
kind: ServiceAccount
metadata: {name: rel-nginx, labels: LABELS}
automountServiceAccountToken: false
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: rel-nginx, labels: LABELS}
spec:
  podSelector: {matchLabels: {app.kubernetes.io/name: nginx}}
  policyTypes: [Ingress, Egress]
  egress: [{}]
  ingress: [{ports: [{port: 8080}]}]
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: rel-nginx, labels: LABELS}
spec: {maxUnavailable: 1, selector: {matchLabels: {app.kubernetes.io/name: nginx}}}
---
apiVersion: v1
kind: Service
metadata: {name: rel-nginx, labels: LABELS}
spec:
  type: LoadBalancer
  sessionAffinity: None
  externalTrafficPolicy: Cluster
  ports: [{name: http, port: 80, targetPort: http}]
  selector: {app.kubernetes.io/name: nginx}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: rel-nginx, labels: LABELS}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: rel-nginx}
  minReplicas: 1
  maxReplicas: 3
  metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 80}}}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: rel-nginx, labels: LABELS}
spec:
  replicas: 1
  revisionHistoryLimit: 10
  strategy: {type: RollingUpdate, rollingUpdate: {}}
  selector: {matchLabels: {app.kubernetes.io/name: nginx}}
  template:
    metadata: {labels: LABELS, annotations: null}
    spec:
      serviceAccountName: rel-nginx
      shareProcessNamespace: false
      securityContext: {fsGroup: 1001, fsGroupChangePolicy: Always, supplementalGroups: [], sysctls: []}
      affinity:
        podAffinity: null
        podAntiAffinity:
          preferredDuringSchedulingIgnoredDuringExecution:
          - weight: 1
            podAffinityTerm:
              topologyKey: kubernetes.io/hostname
              labelSelector: {matchLabels: {app.kubernetes.io/name: nginx}}
        nodeAffinity: null
      initContainers:
      - name: preserve-logs
        image: docker.io/bitnami/nginx:1.27
        command: [/bin/bash]
        args: ["-ec", "cp -a /opt /empty"]
        volumeMounts: [{name: empty-dir, mountPath: /emptydir}]
      containers:
      - name: nginx
        image: docker.io/bitnami/nginx:1.27
        imagePullPolicy: IfNotPresent
        securityContext:
          allowPrivilegeEscalation: false
          capabilities: {drop: [ALL]}
          runAsNonRoot: true
          runAsUser: 1001
          seccompProfile: {type: RuntimeDefault}
        env: [{name: BITNAMI_DEBUG, value: "false"}, {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}]
        envFrom: null
        ports: [{name: http, containerPort: 8080}]
        livenessProbe: {failureThreshold: 6, initialDelaySeconds: 30, tcpSocket: {port: http}}
        readinessProbe: {httpGet: {path: /, port: http}}
        resources: {limits: {cpu: 150m, memory: 192Mi}, requests: {cpu: 100m, memory: 128Mi}}
        volumeMounts: [{name: empty-dir, mountPath: /tmp, subPath: tmp-dir}]
      volumes: [{name: empty-dir, emptyDir: {}}]
""".replace("LABELS", LABELS % "nginx")

REDIS = """
apiVersion: v1
kind: Secret
metadata: {name: rel-redis, labels: LABELS}
type: Opaque
data: {redis-password: "c2VjcmV0"}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: rel-redis-scripts, labels: LABELS}
data:
  start-master.sh: |
    #!/bin/bash
    exec redis-server "${ARGS[@]}"
---
apiVersion: v1
kind: Service
metadata: {name: rel-redis-headless, labels: LABELS}
spec:
  clusterIP: None
  publishNotReadyAddresses: true
  ports: [{name: tcp-redis, port: 6379, targetPort: redis}]
  selector: {app.kubernetes.io/name: redis}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: rel-redis-master, labels: LABELS}
spec:
  replicas: 1
  serviceName: rel-redis-headless
  updateStrategy: {type: RollingUpdate}
  selector: {matchLabels: {app.kubernetes.io/name: redis}}
  template:
    metadata: {labels: LABELS, annotations: {checksum/configmap: abc}}
    spec:
      terminationGracePeriodSeconds: 30
      containers:
      - name: redis
        image: docker.io/bitnami/redis:7.4
        command: [/bin/bash]
        args: ["-ec", /opt/scripts/start-master.sh]
        env: [{name: REDIS_PASSWORD, valueFrom: {secretKeyRef: {name: rel-redis, key: redis-password}}}]
        ports: [{name: redis, containerPort: 6379}]
        livenessProbe: {exec: {command: [sh, -c, /health/ping.sh 5]}, timeoutSeconds: 6}
        volumeMounts:
        - {name: start-scripts, mountPath: /opt/scripts}
        - {name: redis-data, mountPath: /data}
      volumes: [{name: start-scripts, configMap: {name: rel-redis-scripts, defaultMode: 0755}}]
  persistentVolumeClaimRetentionPolicy: {whenDeleted: Retain, whenScaled: Retain}
  volumeClaimTemplates:
  - apiVersion: v1
    kind: PersistentVolumeClaim
    metadata: {name: redis-data, labels: LABELS}
    spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 8Gi}}}
""".replace("LABELS", LABELS % "redis")

EXPORTER = """
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: rel-node-exporter, labels: LABELS}
spec:
  updateStrategy: {type: RollingUpdate, rollingUpdate: {maxUnavailable: 1}}
  selector: {matchLabels: {app.kubernetes.io/name: node-exporter}}
  template:
    metadata: {labels: LABELS, annotations: {cluster-autoscaler.kubernetes.io/safe-to-evict: "true"}}
    spec:
      hostNetwork: true
      hostPID: true
      automountServiceAccountToken: false
      nodeSelector: {kubernetes.io/os: linux}
      tolerations: [{effect: NoSchedule, operator: Exists}]
      containers:
      - name: node-exporter
        image: quay.io/prometheus/node-exporter:v1.8.2
        args: [--path.procfs=/host/proc, --web.listen-address=$(HOST_IP):9100]
        env: [{name: HOST_IP, valueFrom: {fieldRef: {apiVersion: v1, fieldPath: status.hostIP}}}]
        ports: [{name: metrics, containerPort: 9100, protocol: TCP}]
        volumeMounts:
        - {name: proc, mountPath: /host/proc, readOnly: true}
        - {name: root, mountPath: /host/root, mountPropagation: HostToContainer, readOnly: true}
      volumes: [{name: proc, hostPath: {path: /proc}}, {name: root, hostPath: {path: /}}]
""".replace("LABELS", LABELS % "node-exporter")

CERTIFICATES = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: issuers.cert.example, annotations: {helm.sh/resource-policy: keep}, labels: LABELS}
spec:
  group: cert.example
  scope: Namespaced
  names: {kind: Issuer, listKind: IssuerList, plural: issuers, singular: issuer, categories: [cert]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}}
    additionalPrinterColumns:
    - {jsonPath: '.status.conditions[?(@.type=="Ready")].status', name: Ready, type: string}
    - {jsonPath: .metadata.creationTimestamp, name: Age, type: date}
    schema:
      openAPIV3Schema:
        type: object
        required: [spec]
        properties:
          apiVersion: {type: string}
          kind: {type: string}
          metadata: {type: object}
          spec:
            type: object
            x-kubernetes-validations:
            - {rule: "has(self.selfSigned) != has(self.ca)", message: exactly one kind of issuer}
            - {rule: "!has(oldSelf.ca) || has(self.ca)", message: a CA issuer stays one}
            properties:
              selfSigned: {type: object, x-kubernetes-preserve-unknown-fields: true}
              ca:
                type: object
                required: [secretName]
                properties:
                  secretName: {type: string, minLength: 1}
                  crlDistributionPoints:
                    type: array
                    x-kubernetes-list-type: set
                    items: {type: string, x-kubernetes-validations: [{rule: isURL(self), message: must be a URL}]}
          status:
            type: object
            properties:
              conditions:
                type: array
                x-kubernetes-list-map-keys: [type]
                x-kubernetes-list-type: map
                items:
                  type: object
                  required: [status, type]
                  properties:
                    lastTransitionTime: {type: string, format: date-time}
                    message: {type: string}
                    status: {type: string, enum: ["True", "False", Unknown]}
                    type: {type: string}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata:
  name: rel-edit
  labels: {rbac.authorization.k8s.io/aggregate-to-edit: "true"}
rules: [{apiGroups: [cert.example], resources: [issuers], verbs: [create, delete, patch, update]}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: rel-webhook, annotations: {cert.example/inject-ca-from-secret: default/ca}}
webhooks:
- name: webhook.cert.example
  namespaceSelector: {matchExpressions: [{key: cert.example/disable-validation, operator: NotIn, values: ["true"]}]}
  rules: [{apiGroups: [cert.example], apiVersions: [v1], operations: [CREATE, UPDATE], resources: ["*/*"]}]
  admissionReviewVersions: [v1]
  matchPolicy: Equivalent
  timeoutSeconds: 30
  failurePolicy: Fail
  sideEffects: None
  clientConfig: {service: {name: rel-webhook, namespace: default, path: /validate}}
""".replace("LABELS", LABELS % "cert")

GRAFANA = """
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: rel-grafana, labels: LABELS, finalizers: [kubernetes.io/pvc-protection]}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 10Gi}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: rel-grafana, labels: LABELS}
spec:
  replicas: 1
  strategy: {type: Recreate}
  selector: {matchLabels: {app.kubernetes.io/name: grafana}}
  template:
    metadata: {labels: LABELS}
    spec:
      securityContext: {fsGroup: 472, runAsGroup: 472, runAsUser: 472}
      initContainers:
      - name: init-chown-data
        image: docker.io/library/busybox:1.31.1
        securityContext: {capabilities: {add: [CHOWN]}, runAsNonRoot: false, runAsUser: 0}
        command: [chown, -R, "472:472", /var/lib/grafana]
        volumeMounts: [{name: storage, mountPath: /var/lib/grafana}]
      containers:
      - name: grafana
        image: docker.io/grafana/grafana:11.3.0
        ports: [{name: grafana, containerPort: 3000}, {name: gossip-udp, containerPort: 9094, protocol: UDP}]
        livenessProbe: {failureThreshold: 10, httpGet: {path: /api/health, port: 3000}, timeoutSeconds: 30}
        volumeMounts: [{name: storage, mountPath: /var/lib/grafana}]
      volumes: [{name: storage, persistentVolumeClaim: {claimName: rel-grafana}}]
""".replace("LABELS", LABELS % "grafana")

ISSUER = "apiVersion: cert.example/v1\nkind: Issuer\nmetadata: {name: i}\nspec: %s\n"


def test_charts_of_workloads_run(tmp_path: Path) -> None:
    async def story(on: Cluster) -> None:
        for chart in (NGINX, REDIS, EXPORTER, GRAFANA):
            await on.good("apply", "-f", "-", stdin=chart)
        for name in (
            "deploy/rel-nginx",
            "sts/rel-redis-master",
            "ds/rel-node-exporter",
            "deploy/rel-grafana",
        ):
            await on.good("rollout", "status", name, "--timeout=60s")
        for item in (await on.read("pvc"))["items"]:
            assert item["status"]["phase"] == "Bound"
        slices = (await on.read("endpointslices", "-l", "kubernetes.io/service-name=rel-redis-headless"))[
            "items"
        ]
        assert [port["port"] for port in slices[0]["ports"]] == [6379]
        # an upgrade that changes nothing changes nothing
        before = await on.versions("deploy,sts,ds,netpol,pdb,pods")
        for chart in (NGINX, REDIS, EXPORTER, GRAFANA):
            await on.good("apply", "-f", "-", stdin=chart)
        assert await on.versions("deploy,sts,ds,netpol,pdb,pods") == before
        # what an uninstall does
        for chart in (NGINX, REDIS, EXPORTER, GRAFANA):
            await on.good("delete", "-f", "-", "--timeout=60s", stdin=chart)
        assert [item["metadata"]["name"] for item in (await on.read("pvc"))["items"]] == [
            "redis-data-rel-redis-master-0"
        ]

    on_cluster(tmp_path, story, "n1", "n2")


def test_a_chart_of_definitions_works(tmp_path: Path) -> None:
    async def story(on: Cluster) -> None:
        assert "does not call them" in await on.said_of(CERTIFICATES)
        await on.good("wait", "--for=condition=Established", "crd/issuers.cert.example", "--timeout=30s")
        for spec, text in (
            ("{}", "exactly one kind of issuer"),
            ("{selfSigned: {}, ca: {secretName: a}}", "exactly one kind of issuer"),
            ("{ca: {secretName: a, crlDistributionPoints: [nowhere]}}", "must be a URL"),
            ('{ca: {secretName: ""}}', "should be at least 1 chars long"),
        ):
            code, err = await on.tried("apply", "-f", "-", stdin=ISSUER % spec)
            assert (code, text in err) == (1, True), err
        await on.good("apply", "-f", "-", stdin=ISSUER % "{ca: {secretName: a}}")
        code, err = await on.tried("apply", "-f", "-", stdin=ISSUER % "{selfSigned: {}}")
        assert (code, "a CA issuer stays one" in err) == (1, True), err
        status = '{"status":{"conditions":[{"type":"Ready","status":"True"}]}}'
        await on.good("patch", "issuer", "i", "--type=merge", "--subresource=status", "-p", status)
        assert "True" in await on.good("get", "issuers")
        await on.good("delete", "-f", "-", "--timeout=60s", stdin=CERTIFICATES)

    on_cluster(tmp_path, story)
