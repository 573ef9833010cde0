"""Values that set nearly everything of the chart, and what policies select."""

import yaml

from tests.servers.helm import Manifest

EVERYTHING: Manifest = yaml.safe_load(
    """
    platform: openshift
    image: {repository: registry.example.org/tesk, tag: "1", pullSecrets: [registry]}
    database: {postgresql: {existingSecret: database}}
    people:
      {usersSecret: users, issuersSecret: issuers, rulesConfigMap: rules, tokens: never, tokenDays: 30, admins: [alice],
       adminGroups: [admins]}
    corsOrigins: ["https://a.example.org", "https://b.example.org"]
    allowedHosts: [tes.example.org]
    tasks:
      runAsUser: 1000
      podSecurity: restricted
      labels: {team: a, example.org/of: "b,c=d"}
      nodeSelector: {pool: tasks}
      tolerations:
        - {key: dedicated, value: tesk, effect: NoSchedule}
        - {key: gpu, operator: Exists}
      preemptible: {nodeSelector: {spot: "true"}, tolerations: [{key: spot, operator: Exists, effect: NoExecute}]}
      allowedBackendParameters: [gpu, node_selector.disk]
    storage:
      environmentSecret: keys
      mounts: [{path: /credentials, secret: lab}, {path: /refs, claim: references}]
      fileRoots: [{path: /data, claim: lab-data}]
    extraSettings:
      {server: {max_body_bytes: 8388608}, service: {storage: ["s3://lab"]}, tasks: {default_ram_gb: 2.5}}
    server:
      extraEnv: [{name: TZ, value: UTC}]
      tolerations: [{key: dedicated, operator: Exists}]
      affinity: {nodeAffinity: {}}
      priorityClassName: high
      podLabels: {team: a}
      podAnnotations: {example.org/watched: "true"}
      extraVolumes: [{name: ca, configMap: {name: ca}}]
      extraVolumeMounts: [{name: ca, mountPath: /ca}]
    test: {tokenSecret: token}
    service: {type: NodePort, nodePort: 30080}
    ingress: {enabled: true, hosts: [{host: tes.example.org}], tls: [{hosts: [tes.example.org], secretName: tes}]}
    route: {enabled: true, host: tes.example.org}
    podDisruptionBudget: {server: true, tasks: true}
    networkPolicy: {server: {from: [{namespaceSelector: {}}]}}
    """
)


def selected(policy: Manifest, labels: dict[str, str]) -> bool:
    selector = policy["spec"]["podSelector"]
    wanted: dict[str, str] = selector["matchLabels"]
    of = all(labels.get(each["key"]) in each["values"] for each in selector.get("matchExpressions", ()))
    return of and wanted.items() <= labels.items()
