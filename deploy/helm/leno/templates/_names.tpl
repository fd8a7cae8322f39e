{{/* The names of an installation's objects; the same as `leno_install::Names`. */}}
{{- define "leno.suffix" -}}
{{- if ne .Values.revision "default" }}-{{ .Values.revision }}{{ end -}}
{{- end }}

{{- define "leno.control" -}}
leno-control{{ include "leno.suffix" . }}
{{- end }}

{{- define "leno.config" -}}
leno-config{{ include "leno.suffix" . }}
{{- end }}

{{- define "leno.clusterWide" -}}
leno-control{{ include "leno.suffix" . }}-{{ .Values.namespace }}
{{- end }}

{{- define "leno.secrets" -}}
leno-control{{ include "leno.suffix" . }}-gateway-secrets
{{- end }}

{{- define "leno.peers" -}}
leno-control{{ include "leno.suffix" . }}-peers
{{- end }}

{{- define "leno.eastWest" -}}
leno-eastwest{{ include "leno.suffix" . }}
{{- end }}

{{- define "leno.webhook" -}}
leno-sidecar-injector{{ include "leno.suffix" . }}-{{ .Values.namespace }}
{{- end }}

{{- define "leno.agent" -}}
leno-cni{{ include "leno.suffix" . }}
{{- end }}

{{/* Labels by which the pods of the nodes' agent are found. */}}
{{- define "leno.agentSelector" -}}
app: leno-cni
app.kubernetes.io/instance: {{ .Values.revision | quote }}
{{- end }}

{{/* Labels of the agent's objects. */}}
{{- define "leno.agentLabels" -}}
app: leno-cni
app.kubernetes.io/name: leno-cni
app.kubernetes.io/instance: {{ .Values.revision | quote }}
app.kubernetes.io/part-of: leno
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end }}

{{/* Metadata of the agent's objects. */}}
{{- define "leno.agentMetadata" -}}
name: {{ include "leno.agent" . }}
namespace: {{ .Values.cni.namespace }}
labels:
  {{- include "leno.agentLabels" . | nindent 2 }}
{{- end }}

{{/* Labels by which the control plane's pods are found. */}}
{{- define "leno.selector" -}}
app: leno-control
app.kubernetes.io/instance: {{ .Values.revision | quote }}
{{- end }}

{{/* Labels of every object of the control plane. */}}
{{- define "leno.labels" -}}
app: leno-control
app.kubernetes.io/name: leno-control
app.kubernetes.io/instance: {{ .Values.revision | quote }}
app.kubernetes.io/part-of: leno
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end }}

{{/* Metadata of an object of the control plane's namespace: (list . NAME). */}}
{{- define "leno.metadata" -}}
{{- $root := first . -}}
name: {{ last . }}
namespace: {{ $root.Values.namespace }}
labels:
  {{- include "leno.labels" $root | nindent 2 }}
{{- end }}

{{/* Metadata of an object without a namespace: (list . NAME). */}}
{{- define "leno.clusterMetadata" -}}
name: {{ last . }}
labels:
  {{- include "leno.labels" (first .) | nindent 2 }}
{{- end }}

{{/* Full name of an image: (list . NAME). */}}
{{- define "leno.image" -}}
{{- $root := first . -}}
{{- with $root.Values.image.registry | trimSuffix "/" }}{{ . }}/{{ end -}}
{{- last . }}:{{ $root.Values.image.tag | default $root.Chart.AppVersion }}
{{- end }}

{{/* What gives a role to the control plane's ServiceAccount: (list . KIND NAME). */}}
{{- define "leno.binding" -}}
{{- $root := first . -}}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: {{ index . 1 }}
  name: {{ index . 2 }}
subjects:
- kind: ServiceAccount
  name: {{ include "leno.control" $root }}
  namespace: {{ $root.Values.namespace }}
{{- end }}
