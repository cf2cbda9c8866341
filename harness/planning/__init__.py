"""From a grid to jobs: what cells share, which job runs next, who works on it, what is shown meanwhile."""
