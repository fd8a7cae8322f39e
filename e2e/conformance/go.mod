module leno.dev/e2e/conformance

go 1.26

require (
	sigs.k8s.io/gateway-api/conformance v1.6.3
	sigs.k8s.io/yaml v1.6.0
)
