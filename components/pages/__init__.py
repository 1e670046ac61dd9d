"""What charts and pages share: chart_style and markdown."""
