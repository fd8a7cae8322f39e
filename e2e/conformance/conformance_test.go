// Package conformance is the Gateway API's own conformance suite, as a program that ends with the counts of each profile.
package conformance

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	suite "sigs.k8s.io/gateway-api/conformance"
	"sigs.k8s.io/yaml"
)

func TestConformance(t *testing.T) { suite.RunConformance(t) }

func TestMain(m *testing.M) {
	code := m.Run()
	if path := flag.Lookup("report-output").Value.String(); path != "" {
		if err := count(path); err != nil {
			fmt.Fprintln(os.Stderr, "conformance:", err)
			code = 1
		}
	}
	os.Exit(code)
}

// level is what a profile's report says of its core or of its extended features.
type level struct {
	Statistics                struct{ Passed, Failed, Skipped int }
	FailedTests, SkippedTests []string
	SupportedFeatures         []string
}

// count prints a line for each level of each profile in a report.
func count(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var report struct {
		Profiles []struct {
			Name           string
			Core, Extended *level
		}
	}
	if err := yaml.Unmarshal(text, &report); err != nil {
		return err
	}
	if len(report.Profiles) == 0 {
		return fmt.Errorf("%s speaks of no profile", path)
	}
	for _, profile := range report.Profiles {
		for _, it := range []struct {
			name string
			*level
		}{{"core", profile.Core}, {"extended", profile.Extended}} {
			if it.level == nil {
				continue
			}
			n := it.Statistics
			fmt.Printf("%s %s: %d passed, %d failed, %d skipped\n", profile.Name, it.name, n.Passed, n.Failed, n.Skipped)
			if len(it.FailedTests) > 0 {
				fmt.Printf("  failed: %s\n", strings.Join(it.FailedTests, ", "))
			}
			if len(it.SkippedTests) > 0 {
				fmt.Printf("  skipped: %s\n", strings.Join(it.SkippedTests, ", "))
			}
		}
	}
	return nil
}
