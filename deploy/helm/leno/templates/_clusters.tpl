{{/* The east-west gateway's labels, metadata and settings; the same as `leno_install`'s `clusters`. */}}
{{- define "leno.eastWestSelector" -}}
app: leno-eastwest
app.kubernetes.io/instance: {{ .Values.revision | quote }}
{{- end }}

{{- define "leno.eastWestLabels" -}}
app: leno-eastwest
app.kubernetes.io/name: leno-eastwest
app.kubernetes.io/instance: {{ .Values.revision | quote }}
app.kubernetes.io/part-of: leno
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end }}

{{- define "leno.eastWestMetadata" -}}
name: {{ include "leno.eastWest" . }}
namespace: {{ .Values.namespace }}
labels:
  {{- include "leno.eastWestLabels" . | nindent 2 }}
{{- end }}

{{/* Kubernetes reads `$$` as `$`. */}}
{{- define "leno.proxySettings" -}}
{{- $proxy := .Values.proxy -}}
{{- $settings := dict
  "accessLog" $proxy.accessLog
  "concurrency" $proxy.concurrency
  "drainDuration" $proxy.drainDuration
  "logLevel" $proxy.logLevel
-}}
{{- if $proxy.tracing.endpoint -}}
{{- $_ := set $settings "tracing" (dict "endpoint" $proxy.tracing.endpoint "sampling" $proxy.tracing.sampling) -}}
{{- end -}}
{{- toJson $settings | replace "$" "$$" -}}
{{- end }}

{{/* Where the installation's own pods may run, and by what their images are pulled. */}}
{{- define "leno.scheduled" -}}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
{{- range . }}
- name: {{ . }}
{{- end }}
{{- end }}
{{- end }}
