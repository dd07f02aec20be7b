"""The alerting rules as data, the table of what each must do, and promtool unit tests made from the two."""
