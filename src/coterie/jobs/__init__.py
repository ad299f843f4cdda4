"""Weekly training and daily inference of a service, from one configuration file.

The only room that knows of days and weeks: below it there are data sets, runs, versions of models
and editions of lists.
"""
