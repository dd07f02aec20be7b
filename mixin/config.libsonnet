{
  _config+:: {
    // Alerts that are left out, by name.
    excludedAlerts: [],

    // Labels that every alert gets, for instance to route it: { team: 'core' }.
    alertLabels: {},

    // URL of docs/runbooks.md as your people reach it; null leaves the links as they are.
    runbookUrl: null,

    // Tags that every dashboard gets beside its own.
    dashboardTags: [],
  },
}
