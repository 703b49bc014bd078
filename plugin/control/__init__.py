"""What a running server serves and to whom, and how that changes.

generation   the one small file that says what is served; pure steps from one to the next
state        the folder that all processes of a server share: that file, versions of profiles, a lock
begin        what a server does before its engine starts
served       what this process serves now, read from that file with one stat per request
rollout      stage, activate, unload, disable: what an admin route, a rescan or a desired state asks for
desired      the operator's file that names what is to be served
refresh      brings the server to what the folder or that file says, again and again
audit        one line per change
finished     how each request ended, told once
keys         who may change it
policy       who may be steered how
"""
