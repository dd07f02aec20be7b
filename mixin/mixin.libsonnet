// The alerts and dashboards of this repository as a monitoring mixin. The files in ../alerts and ../dashboards are the
// source; nothing is written twice.
local files = import 'files.libsonnet';

(import 'config.libsonnet') + {
  local config = $._config,

  local runbook(url) =
    if config.runbookUrl == null then url
    else std.join('#', [config.runbookUrl] + std.split(url, '#')[1:]),

  local changed(rule) =
    if std.objectHas(rule, 'alert') then
      rule {
        labels+: config.alertLabels,
        annotations+: {
          [if std.objectHas(rule.annotations, 'runbook_url') then 'runbook_url']:
            runbook(rule.annotations.runbook_url),
        },
      }
    else rule,

  local kept(rule) = !std.objectHas(rule, 'alert') || !std.member(config.excludedAlerts, rule.alert),

  local groups = [
    group { rules: [changed(rule) for rule in group.rules if kept(rule)] }
    for text in files.alerts
    for group in std.parseYaml(text).groups
  ],

  local alerts(group) = std.length([rule for rule in group.rules if std.objectHas(rule, 'alert')]) > 0,

  // The groups that hold an alert, with the recording rules among them; the groups of recording rules alone.
  prometheusAlerts+:: {
    groups+: [group for group in groups if alerts(group)],
  },
  prometheusRules+:: {
    groups+: [group for group in groups if !alerts(group) && std.length(group.rules) > 0],
  },

  grafanaDashboards+:: {
    [name]: files.dashboards[name] { tags+: config.dashboardTags }
    for name in std.objectFields(files.dashboards)
  },
}
